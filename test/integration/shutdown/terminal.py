# Runs a command on a terminal of its own, as a shell would: standard input and error are the terminal, standard output is descriptor 3.
# Prints how the command ended. A line on standard input hangs up, and is answered; the end of standard input ends the shell. At a second
# line the shell passes the hangup on again.
# With ENDS_SHELL such a line ends the shell, and the terminal stays open.
# With KEEPS_HANGUP the command is in the background, and the shell does not pass the hangup on to it: `disown` of bash.
import json, os, pty, signal, subprocess, sys

answers = os.dup(1)
shell, terminal = pty.fork()
if shell == 0:
    keeps = 'KEEPS_HANGUP' in os.environ
    command = subprocess.Popen(sys.argv[1:], stdout=3, preexec_fn=os.setpgrp if keeps else None)

    def pass_on(*_):
        if not keeps:
            command.send_signal(signal.SIGHUP)
            os.write(answers, json.dumps({'passedOn': True}).encode() + b'\n')

    signal.signal(signal.SIGHUP, pass_on)
    os.write(answers, json.dumps({'code': command.wait()}).encode() + b'\n')
    signal.pause()

sys.stdin.readline()
os.kill(shell, signal.SIGKILL) if 'ENDS_SHELL' in os.environ else os.close(terminal)
os.write(answers, json.dumps({'hungUp': True}).encode() + b'\n')
for line in sys.stdin:
    os.kill(shell, signal.SIGHUP)
os.kill(shell, signal.SIGKILL)
