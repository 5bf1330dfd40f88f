# Runs a command on a terminal of its own, writes a line of JSON for what happens, and hangs up when told to by a line on stdin.
# The events of the command come through the file named EVENTS, since its output goes to the terminal.
import json, os, pty, sys

pid, terminal = pty.fork()
if pid == 0:
    os.dup2(int(os.environ['EVENTS_FD']), 1)
    os.execvp(sys.argv[1], sys.argv[1:])

print(json.dumps({'started': pid}), flush=True)
sys.stdin.readline()
os.close(terminal)
_, status = os.waitpid(pid, 0)
print(json.dumps({'code': os.waitstatus_to_exitcode(status)}), flush=True)
