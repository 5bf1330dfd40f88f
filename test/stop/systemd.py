# Receives what a service tells systemd, and prints each datagram as a line of JSON with the pid of its sender.
import json, socket, struct, sys

receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
receiver.bind(sys.argv[1])
print(json.dumps({'bound': True}), flush=True)
while True:
    text, ancillary, _, _ = receiver.recvmsg(4096, 64)
    pid = struct.unpack('3i', ancillary[0][2][:12])[0] if ancillary else 0
    print(json.dumps({'pid': pid, 'fields': dict(line.split('=', 1) for line in text.decode().split('\n'))}), flush=True)
