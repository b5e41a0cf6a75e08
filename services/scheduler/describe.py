"""Describes one requested backbone and stores the answer; a process of its own, since it loads torch and timm.

Started by a scheduler as `python -m services.scheduler.describe KEY CLAIMED_AT`.
"""

import argparse
import sys
from dataclasses import replace
from datetime import datetime

from glora_core.backbones import BackboneSpec, describe, language
from glora_core.errors import GloraError
from services.backbone_files import check_backbone
from services.settings import get_settings
from services.store import backbones
from services.store.database import Database
from services.store.models import Backbone


def main() -> int:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Describes one requested backbone; started by a scheduler.")
    parser.add_argument("key")
    parser.add_argument("claimed_at", type=datetime.fromisoformat)
    arguments = parser.parse_args()
    key: str = arguments.key
    settings = get_settings()
    database = Database(settings.resolved_database_url)
    with database.read() as session:
        spec = session.get_one(Backbone, key).spec
    try:
        asked = BackboneSpec.of(spec)
        check_backbone(asked.name, asked.weights, settings.data_roots)  # again: what a library follows may have changed
        found = describe(asked)
        if found.reads_texts:  # without a tokenizer it could not be used, and that may know better what it reads
            tokenizer = language.tokenizer(asked)
            most = language.longest(asked, tokenizer, found.max_length)
            found = replace(found, max_length=most, added_tokens=tokenizer.num_special_tokens_to_add())
        info, error = found.to_dict(), None
    except GloraError as refusal:
        info, error = None, str(refusal)
    with database.write() as session:
        backbones.describe(session, key, arguments.claimed_at, info=info, error=error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
