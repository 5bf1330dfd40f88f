# Receives what a service tells systemd, and prints each datagram as a line of JSON with the pid of its sender.
import array, json, os, socket, struct, sys

receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
receiver.bind(sys.argv[1])
print(json.dumps({'bound': True}), flush=True)
while True:
    text, ancillary, _, _ = receiver.recvmsg(4096, 256)
    pid, files = 0, []
    for _, kind, data in ancillary:
        if kind == socket.SCM_CREDENTIALS:
            pid = struct.unpack('3i', data[:12])[0]
        elif kind == socket.SCM_RIGHTS:
            for fd in array.array('i', data):
                files.append(os.pread(fd, 4096, 0).decode())
                os.close(fd)
    notice = {'pid': pid, 'fields': dict(line.split('=', 1) for line in text.decode().split('\n'))}
    print(json.dumps({**notice, 'files': files} if files else notice), flush=True)
