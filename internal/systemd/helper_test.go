package systemd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/systemd/fakesystemd"
)

const (
	serviceText = "[Unit]\nDescription=Thing\n\n[Service]\nExecStart=/usr/bin/thing\nUser=thing\n\n[Install]\nWantedBy=multi-user.target\nAlias=old-thing.service\n"
	socketText  = "[Socket]\nListenStream=/run/thing.sock\n\n[Install]\nWantedBy=sockets.target\n"
)

// node is a machine with a service that may be installed.
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

// write puts a file below the root.
func (n *node) write(path, text string) {
	n.Helper()
	n.must(os.MkdirAll(filepath.Join(n.root, filepath.Dir(path)), 0o755))
	n.must(os.WriteFile(filepath.Join(n.root, path), []byte(text), 0o644))
}

// files lists what is below /etc.
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

// does runs a verb and compares what it says, with the root taken out, and what
// it asks systemd for.
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
		n.Errorf("%s asked for\n%s\nwant\n%s", line, have, want)
	}
}

const (
	ok     = " The Thing:\t\t\t\t\t[  OK  ]\n"
	failed = " The Thing:\t\t\t\t\t[FAILED]\n"
)
