"""What is stored and signed: VIB archives, CMS signatures, ELF modules, PE boot loaders and boot banks."""
