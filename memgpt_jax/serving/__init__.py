"""An HTTP server of a model with live memories, in the form of OpenAI's API. Needs the extra `serve`."""
