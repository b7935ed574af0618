"""Bytes between two parties: frames, channels, TLS, links and the ledger. Knows no layer.

- `channel`: one party's end of a connection: sends and receives messages of arrays
- `frames`: a message as bytes, and the checks before anything of it is used
- `packed_words`: words of any number of bits, packed; shares are sent like this
- `record_codec`: records, such as a model's description, as bytes
- `stream`: reads and writes a socket, with deadlines
- `outbox`: the thread that sends while its party goes on computing
- `tls`: certificates and contexts
- `listener`: accepts connections, and limits how long they last
- `accounts`: limits how many there are, of whom, and what else visitors hold of a server
- `emulated_link`: a socket with the delay and the rate of a slower network
- `ledger`: counts bytes, messages and seconds
"""
