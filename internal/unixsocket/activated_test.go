package unixsocket

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// helperActivated is a service. It sets the variables of socket activation itself, because
// they must contain its own pid.
func helperActivated() error {
	if os.Getenv("LISTEN_PID") == "" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	log := new(logs)
	l, err := Listen(Options{Path: os.Getenv("SOCKET"), Name: os.Getenv("NAME"), Log: log.logger()})
	if err != nil {
		return err
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if v, ok := os.LookupEnv(name); ok {
			return fmt.Errorf("%s=%s remains in the environment", name, v)
		}
	}
	fmt.Println(l.Activated(), filepath.Base(l.Addr().String()))
	fmt.Println("warnings:", len(log.String()) > 0)
	if os.Getenv("SERVE") != "" {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		fmt.Fprint(c, os.Getenv("SERVE"))
		c.Close()
	}
	return l.Close()
}

// socketUnit replaces systemd: its listening sockets outlive the service.
func socketUnit(t *testing.T, network string, path string) (*os.File, net.Addr) {
	t.Helper()
	var f *os.File
	var err error
	var addr net.Addr
	switch network {
	case "unixgram":
		var c *net.UnixConn
		if c, err = net.ListenUnixgram(network, &net.UnixAddr{Net: network, Name: path}); err == nil {
			f, err = c.File()
			c.Close()
		}
	case "tcp":
		var l net.Listener
		if l, err = net.Listen(network, "127.0.0.1:0"); err == nil {
			f, err = l.(*net.TCPListener).File()
			l.Close()
		}
	case "connected":
		l, e := net.Listen("unix", path)
		if e != nil {
			t.Fatal(e)
		}
		defer l.Close()
		c, e := net.Dial("unix", path)
		if e != nil {
			t.Fatal(e)
		}
		defer c.Close()
		f, err = c.(*net.UnixConn).File()
	default:
		var l *net.UnixListener
		if l, err = net.ListenUnix(network, &net.UnixAddr{Net: network, Name: path}); err == nil {
			l.SetUnlinkOnClose(false)
			addr = l.Addr()
			f, err = l.File()
			l.Close()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, addr
}

func TestActivation(t *testing.T) {
	for _, tt := range []struct {
		name    string
		sockets []string
		env     []string
		want    []string
	}{
		{"one", []string{"unix a"}, []string{"SOCKET=a"}, []string{"true a", "warnings: false"}},
		{"another path", []string{"unix a"}, []string{"SOCKET=b"}, []string{"true a", "warnings: true"}},
		{"first suitable", []string{"tcp", "unixgram a", "unixpacket b", "connected c", "unix d", "unix e"}, []string{"SOCKET=d"}, []string{"true d", "warnings: true"}},
		{"by name", []string{"unix a", "unix b"}, []string{"SOCKET=b", "LISTEN_FDNAMES=x:y", "NAME=y"}, []string{"true b", "warnings: true"}},
		{"no such name", []string{"unix a", "unix b"}, []string{"SOCKET=b", "LISTEN_FDNAMES=x:y", "NAME=z"}, []string{"true a", "warnings: true"}},
		{"none suitable", []string{"tcp", "connected c"}, []string{"SOCKET=c"}, []string{
			"error: systemd passed no listening Unix stream socket; the socket unit needs ListenStream= with a path, and Accept=no: descriptor 3 (LISTEN_FD_3): not a Unix socket",
			"descriptor 4 (LISTEN_FD_4): not listening"}},
		{"for another process", []string{"unix a"}, []string{"SOCKET=b", "LISTEN_PID=1"}, []string{"false b", "warnings: false"}},
		{"not a number", []string{"unix a"}, []string{"SOCKET=b", "LISTEN_FDS=many"}, []string{"false b", "warnings: false"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := directory(t)
			var files []*os.File
			for _, s := range tt.sockets {
				var network, name string
				fmt.Sscan(s, &network, &name)
				f, _ := socketUnit(t, network, filepath.Join(dir, name))
				files = append(files, f)
			}
			env := []string{"LISTEN_FDS=" + strconv.Itoa(len(files))}
			for _, e := range tt.env {
				if name, ok := strings.CutPrefix(e, "SOCKET="); ok {
					e = "SOCKET=" + filepath.Join(dir, name)
				}
				env = append(env, e)
			}
			p := startWith(t, "activated", 0, files, env...)
			for _, line := range tt.want {
				p.want(line)
			}
			p.end()
			if tt.want[0] == "true a" {
				if _, err := os.Lstat(filepath.Join(dir, "a")); err != nil {
					t.Errorf("the service removed systemd's socket: %v", err)
				}
			}
		})
	}
}

// The next service serves a client that connects while no service runs.
func TestActivationKeepsClients(t *testing.T) {
	path := filepath.Join(directory(t), "s")
	f, addr := socketUnit(t, "unix", path)
	for _, answer := range []string{"first", "second"} {
		c, err := net.Dial("unix", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		p := startWith(t, "activated", 0, []*os.File{f}, "LISTEN_FDS=1", "SOCKET="+path, "SERVE="+answer)
		got := make([]byte, 10)
		n, err := c.Read(got)
		if string(got[:n]) != answer {
			t.Errorf("got %q, %v; want %q", got[:n], err, answer)
		}
		p.end()
	}
}
