"""The service around glora_core: store, scheduler, cluster, API, dashboard and client."""
