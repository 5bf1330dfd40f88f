// The other process of the tests, in Go: `peer ROLE`, with the connection as descriptor 3.
//
// Each role does what the role of the same name in peer.py does, with nothing but the standard library.
package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"syscall"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func say(what any) { must(json.NewEncoder(os.Stdout).Encode(what)) }

func receiveMessage(connection *net.UnixConn) (data []byte, fds []int) {
	into, control := make([]byte, 65536), make([]byte, syscall.CmsgSpace(252*4))
	n, controlLength, _, _, err := connection.ReadMsgUnix(into, control)
	must(err)
	parts, err := syscall.ParseSocketControlMessage(control[:controlLength])
	must(err)
	for i := range parts {
		fds, err = syscall.ParseUnixRights(&parts[i])
		must(err)
	}
	return into[:n], fds
}

func sendMessage(connection *net.UnixConn, data string, files []*os.File) {
	var fds []int
	for _, file := range files {
		fds = append(fds, int(file.Fd()))
	}
	_, _, err := connection.WriteMsgUnix([]byte(data), syscall.UnixRights(fds...), nil)
	must(err)
}

func main() {
	generic, err := net.FileConn(os.NewFile(3, "connection"))
	must(err)
	connection := generic.(*net.UnixConn)

	switch os.Args[1] {
	case "receive": // Says the data, and the text behind each descriptor.
		data, fds := receiveMessage(connection)
		texts := []string{}
		for _, fd := range fds {
			text := make([]byte, 100)
			n, err := syscall.Read(fd, text)
			must(err)
			texts = append(texts, string(text[:n]))
		}
		say(map[string]any{"data": string(data), "texts": texts})

	case "send": // Sends the reading ends of three pipes, with a text in each.
		var files []*os.File
		for _, text := range []string{"one", "two", "three"} {
			reading, writing, err := os.Pipe()
			must(err)
			_, err = writing.WriteString(text)
			must(err)
			must(writing.Close())
			files = append(files, reading)
		}
		sendMessage(connection, "from afar", files)

	case "listen": // Sends a listening socket and ends.
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(err)
		file, err := listener.(*net.TCPListener).File()
		must(err)
		sendMessage(connection, "take it", []*os.File{file})

	case "serve": // Receives a listener and answers one connection.
		data, fds := receiveMessage(connection)
		header, rest, _ := bytes.Cut(data, []byte("\n"))
		var said struct{ Name string }
		must(json.Unmarshal(header, &said))
		say(map[string]any{"name": said.Name, "data": string(rest)})
		listener, err := net.FileListener(os.NewFile(uintptr(fds[0]), "listener"))
		must(err)
		accepted, err := listener.Accept()
		must(err)
		_, err = accepted.Write([]byte("another language"))
		must(err)
		must(accepted.Close())
	}
}
