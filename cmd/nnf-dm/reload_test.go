package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// configure replaces the configuration and tells the daemon, which says when it has
// read it.
func (p *proc) configure(file, text string) {
	p.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	count := func() (ready int) {
		for _, n := range p.notices {
			if n == "READY=1" {
				ready++
			}
		}
		return ready
	}
	p.mu.Lock()
	before := count()
	p.mu.Unlock()
	p.signal(syscall.SIGHUP)
	p.until("end of the reload", func() bool { return count() > before })
}

// connections opens so many, and returns how many were refused.
func connections(t *testing.T, socket string, n int) (refused int) {
	t.Helper()
	for range n {
		conn := dial(t, socket)
		defer conn.Close()
		switch err := call(t, conn); status.Code(err) {
		case codes.OK:
		case codes.ResourceExhausted, codes.Unavailable: // told so; turned away
			refused++
		default:
			t.Error(err)
		}
	}
	return refused
}

// What may change at run time does, for those who are there, too. A bad file
// changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	const many = 40 // more than root may have, too
	file := filepath.Join(short(t), "c.toml")
	if err := os.WriteFile(file, []byte("limits.connections = 8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := simulated(t, "--config="+file)
	if n := connections(t, p.socket, many); n == 0 {
		t.Error("nobody was refused")
	}
	p.configure(file, "limits.connections = 100\nsocket.mode = \"0600\"\n")
	p.logged(`msg="configuration read again" changed=limits.connections needs_restart=socket.mode event=reload`)
	if n := connections(t, p.socket, many); n != 0 {
		t.Errorf("%d were refused after the reload", n)
	}
	for _, bad := range []string{"limits.connections = 9\nno", "limits.connections = 1\n", "options.dcp = [\"-U\"]\nlimits.connections = 9\n"} {
		p.configure(file, bad)
		if n := connections(t, p.socket, many); n != 0 {
			t.Errorf("%d were refused: %q was taken over", n, bad)
		}
	}
	p.until("three refusals", func() bool { return strings.Count(p.log.String(), "event=dm-config-refused") == 3 })

	// Debug records come and go with the level.
	p.configure(file, "log.level = \"error\"\nlimits.connections = 100\n")
	before := len(p.text())
	p.configure(file, "log.level = \"error\"\nlimits.connections = 101\n")
	if more := p.text()[before:]; more != "" {
		t.Errorf("said below the level: %s", more)
	}
	p.signal(syscall.SIGTERM)
	p.ended(0)
	p.gone()
}

// The time for the shutdown may be changed until it begins.
func TestReloadShutdownTimeout(t *testing.T) {
	t.Parallel()
	file := filepath.Join(short(t), "c.toml")
	if err := os.WriteFile(file, []byte("daemon.shutdown_timeout = \"1h\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := simulated(t, "--config="+file)
	held(t, dial(t, p.socket))
	p.configure(file, "daemon.shutdown_timeout = \"100ms\"\n")
	p.signal(syscall.SIGTERM)
	p.ended(0)
}
