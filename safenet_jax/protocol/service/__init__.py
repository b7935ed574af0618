"""A client and a server that outlive one inference: sessions, commands, what each of them keeps."""
