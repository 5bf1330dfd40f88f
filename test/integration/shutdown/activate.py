# Starts a command as systemd does for a socket unit: `activate.py tcp unix:/path udp connection file:NAME -- command…` opens these and passes them as 3, 4, …; `unix:@name` is abstract
import fcntl, os, socket, sys

specs, command = sys.argv[1:sys.argv.index('--')], sys.argv[sys.argv.index('--') + 1:]
kept, fds, names = [], [], []
for spec in specs:
    kind, _, where = spec.partition(':')
    if kind == 'file':
        fd, name = os.memfd_create(where), where
        os.write(fd, b'{}')
    else:
        family = socket.AF_UNIX if kind == 'unix' else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_DGRAM if kind == 'udp' else socket.SOCK_STREAM)
        opened.bind(where.replace('@', '\0') if kind == 'unix' else ('127.0.0.1', 0))
        if kind != 'udp':
            opened.listen(64)
        if kind in ('tcp', 'udp'):
            os.environ[kind.upper() + '_PORT'] = str(opened.getsockname()[1])
        if kind == 'connection':
            kept.append(opened)
            opened = socket.create_connection(opened.getsockname())
        kept.append(opened)
        fd, name = opened.fileno(), kind
    fds.append(fcntl.fcntl(fd, fcntl.F_DUPFD, 50))
    names.append(name)
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number)
    os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=':'.join(names), WATCHDOG_PID=str(os.getpid()))
os.execv(command[0], command)
