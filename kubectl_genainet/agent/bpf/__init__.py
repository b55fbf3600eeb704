"""BTF, headers, compiler (the only `import bcc`), images, loader."""
