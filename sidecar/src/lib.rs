//! The proxy in front of one Ollama.
