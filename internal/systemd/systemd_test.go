package systemd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/systemd/fakesystemd"
)

const (
	serviceText = "[Unit]\nDescription=Thing\n\n[Service]\nExecStart=/usr/bin/thing\nUser=thing\n\n[Install]\nWantedBy=multi-user.target\nAlias=old-thing.service\n"
	socketText  = "[Socket]\nListenStream=/run/thing.sock\n\n[Install]\nWantedBy=sockets.target\n"
)

// node is a machine with a service.
type node struct {
	*testing.T
	Service
	systemd fakesystemd.Manager
	root    string
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{T: t, root: t.TempDir()}
	n.systemd.Root = n.root
	n.must(n.systemd.Boot())
	n.Service = Service{
		Name: "thing", Description: "The Thing", User: "thing",
		Units:   []Unit{{"thing.service", serviceText}, {"thing.socket", socketText}},
		Machine: Machine{Root: n.root, Run: n.systemd.Run, UID: func() int { return 0 }, Program: func(string) (string, error) { return "/opt/bin/thing", nil }},
	}
	return n
}

func (n *node) must(err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
}

// write creates a file below the root.
func (n *node) write(path, text string) {
	n.Helper()
	n.must(os.MkdirAll(filepath.Join(n.root, filepath.Dir(path)), 0o755))
	n.must(os.WriteFile(filepath.Join(n.root, path), []byte(text), 0o644))
}

// files returns the files below /etc/systemd/system.
func (n *node) files() (list []string) {
	n.must(filepath.WalkDir(filepath.Join(n.root, "etc"), func(path string, d os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && !d.IsDir() {
			list = append(list, strings.TrimPrefix(path, n.root+"/etc/systemd/system/"))
		}
		return err
	}))
	return list
}

// does runs a verb and compares its output, without the root, and its calls of systemd.
func (n *node) does(line string, code int, stdout, stderr string, calls ...string) {
	n.Helper()
	words := strings.Fields(line)
	var out, errs bytes.Buffer
	got := n.Do(context.Background(), words[0], words[1:], nil, &out, &errs)
	if got != code {
		n.Errorf("%s: code %d, want %d", line, got, code)
	}
	for name, text := range map[string][2]string{"stdout": {out.String(), stdout}, "stderr": {errs.String(), stderr}} {
		if have := strings.ReplaceAll(text[0], n.root, ""); have != text[1] {
			n.Errorf("%s: %s\n%s\nwant\n%s", line, name, have, text[1])
		}
	}
	if have, want := strings.Join(n.systemd.Log(), "\n"), strings.Join(calls, "\n"); have != want {
		n.Errorf("%s: calls\n%s\nwant\n%s", line, have, want)
	}
}

const (
	ok     = " The Thing:\t\t\t\t\t[  OK  ]\n"
	failed = " The Thing:\t\t\t\t\t[FAILED]\n"
)

// terminal returns both ends of a new pseudo-terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// Colours are used on terminals, unless they are disabled.
func TestColours(t *testing.T) {
	for _, tt := range []struct {
		verb    string
		environ []string
		want    string
	}{
		{"start", nil, "Starting The Thing:\t\t\t\t\t[\x1b[32m  OK  \x1b[0m]\r\n"},
		{"stop", []string{"TERM=xterm", "NO_COLOR="}, "Stopping The Thing:\t\t\t\t\t[\x1b[31mFAILED\x1b[0m]\r\n"},
		{"start", []string{"NO_COLOR=1"}, "Starting The Thing:\t\t\t\t\t[  OK  ]\r\n"},
		{"stop", []string{"TERM=dumb"}, "Stopping The Thing:\t\t\t\t\t[FAILED]\r\n"},
	} {
		n := newNode(t)
		n.write("usr/lib/systemd/system/thing.service", serviceText)
		master, slave := terminal(t)
		n.Do(context.Background(), tt.verb, nil, tt.environ, slave, slave)
		if err := master.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 4096)
		read, err := master.Read(data)
		if have := string(data[:read]); err != nil || !strings.HasPrefix(have, tt.want) {
			t.Errorf("%s, %q: %q, %v", tt.verb, tt.environ, have, err)
		}
	}
}

// A verb fails if its output cannot be written.
func TestWriteFails(t *testing.T) {
	n := newNode(t)
	n.write("usr/lib/systemd/system/thing.service", serviceText)
	read, write := io.Pipe()
	read.Close()
	if code := n.Do(context.Background(), "status", nil, nil, write, new(bytes.Buffer)); code != 1 {
		t.Errorf("code %d", code)
	}
}

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{"": "", " a\n": "a", "a\nb\n": "a; b", "\x1b[31m\x07": `\x1b[31m\a`, "ä\u0085b": `ä\u0085b`, "a\tb": `a\tb`} {
		if have := oneLine(text); have != want {
			t.Errorf("%q became %q, want %q", text, have, want)
		}
	}
}

// The unit starts the program that the administrator would start, never one with a
// relative path.
func TestProgram(t *testing.T) {
	s := Service{Name: "thing"}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("thing", []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                   filepath.Join(dir, "thing"),
		"/nonexistent:" + dir: filepath.Join(dir, "thing"),
		"/nonexistent":        self,
		".":                   self,
		"":                    self,
	} {
		t.Setenv("PATH", path)
		if have, err := s.program(); err != nil || have != want {
			t.Errorf("PATH=%s: %s, %v, want %s", path, have, err, want)
		}
	}
}
