// A program without a server: runs what SCRIPT says.
new Function('process', 'setInterval', process.env.SCRIPT)(process, setInterval)
