# Runs a command on a terminal of its own, as a shell would: standard input and error are the terminal, standard output is descriptor 3.
# Prints how the command ended. A line on standard input hangs up; the end of standard input ends the shell.
import json, os, pty, signal, subprocess, sys

answers = os.dup(1)
shell, terminal = pty.fork()
if shell == 0:
    command = subprocess.Popen(sys.argv[1:], stdout=3)
    signal.signal(signal.SIGHUP, lambda *_: command.send_signal(signal.SIGHUP))
    os.write(answers, json.dumps({'code': command.wait()}).encode() + b'\n')
    signal.pause()

sys.stdin.readline()
os.close(terminal)
sys.stdin.read()
os.kill(shell, signal.SIGKILL)
