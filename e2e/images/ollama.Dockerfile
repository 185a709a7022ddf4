# A real Ollama with its engine on the CPU. The context holds the whole root file system, libraries included.
FROM scratch
COPY root/ /
ENV OLLAMA_HOST=0.0.0.0:11434 LD_LIBRARY_PATH=/lib/ollama:/lib/x86_64-linux-gnu
ENTRYPOINT ["/bin/ollama"]
CMD ["serve"]
