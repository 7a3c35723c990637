"""One module per family of formats; each turns bytes into Blocks. Runs in the sandboxed child."""
