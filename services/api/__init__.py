"""FastAPI control plane: routes, request and response models, authorisation, events. Loads neither torch nor ray."""
