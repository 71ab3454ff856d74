// Package fakenode provides fake nodes and a fake ssh for tests. Each node is a directory in which
// the real scripts run, with fakes of the commands that would change the machine (systemctl,
// rpm, chown). The fake ssh is a separate process, which a test can kill at any moment.
//
// It must not depend on what the scripts do.
package fakenode

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
)

//go:embed bin
var stubs embed.FS

// Fleet is a directory with nodes.
type Fleet struct {
	Dir string
	t   testing.TB
}

// New creates a fleet without nodes.
func New(t testing.TB) *Fleet {
	t.Helper()
	f := &Fleet{Dir: t.TempDir(), t: t}
	f.check(Prepare(f.Dir))
	return f
}

// Prepare writes the fake commands to a directory for nodes.
func Prepare(dir string) error {
	return fs.WalkDir(stubs, "bin", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return errors.Join(err, os.MkdirAll(filepath.Join(dir, "."+path), 0o755))
		}
		data, err := stubs.ReadFile(path)
		if err != nil {
			return err
		}
		return executable.Write(filepath.Join(dir, "."+path), data)
	})
}

// Node is a node of a fleet.
type Node struct {
	Name string
	Root string
	f    *Fleet
}

// Node creates a node that runs systemd and on which nothing is installed.
func (f *Fleet) Node(name string) *Node {
	f.t.Helper()
	n := &Node{Name: name, Root: filepath.Join(f.Dir, name), f: f}
	f.check(Make(f.Dir, name))
	return n
}

// Make creates the directory of a node.
func Make(dir, name string) error {
	for _, d := range []string{product.BinDirectory, product.PackageDirectory, product.UnitDirectory, "run/systemd/system", "run/fake", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(dir, name, d), 0o755); err != nil {
			return err
		}
	}
	sockets := "" // the daemons with a socket unit, for the fake rpm and the fake daemons
	for _, d := range product.Daemons {
		if d.SocketActivated {
			sockets += d.Name + "\n"
		}
	}
	return os.WriteFile(filepath.Join(dir, name, "run/fake/sockets"), []byte(sockets), 0o644)
}

// Calls returns how often ssh was called.
func (f *Fleet) Calls() int {
	f.t.Helper()
	data, err := os.ReadFile(filepath.Join(f.Dir, ".calls"))
	if !errors.Is(err, fs.ErrNotExist) {
		f.check(err)
	}
	return strings.Count(string(data), "\n")
}

func (f *Fleet) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// Fault makes ssh fail for a node. For the faults, see Main; "" removes the fault.
func (n *Node) Fault(fault string) {
	n.f.t.Helper()
	n.f.check(os.WriteFile(n.Root+".fault", []byte(fault), 0o600))
}

// Put writes a file to the node.
func (n *Node) Put(path, text string, mode fs.FileMode) {
	n.f.t.Helper()
	full := filepath.Join(n.Root, path)
	n.f.check(os.MkdirAll(filepath.Dir(full), 0o755))
	n.f.check(os.WriteFile(full, []byte(text), mode))
	n.f.check(os.Chmod(full, mode))
}

// Get returns the contents of a file on the node, or "" if it does not exist.
func (n *Node) Get(path string) string {
	n.f.t.Helper()
	data, err := os.ReadFile(filepath.Join(n.Root, path))
	if !errors.Is(err, fs.ErrNotExist) {
		n.f.check(err)
	}
	return string(data)
}

// Log returns and clears the log of the calls that changed units and packages.
func (n *Node) Log() []string {
	text := n.Get("run/fake/log")
	_ = os.Remove(filepath.Join(n.Root, "run/fake/log"))
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}

// Files returns the mode and checksum of all files below these directories of the node, by
// path, so that a test can compare them.
func (n *Node) Files(directories ...string) map[string]string {
	n.f.t.Helper()
	all := map[string]string{}
	for _, dir := range directories {
		err := filepath.WalkDir(filepath.Join(n.Root, dir), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			st, err := d.Info()
			if err != nil {
				return err
			}
			state := st.Mode().String()
			if d.Type().IsRegular() {
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				sum := sha256.Sum256(data)
				state += " " + hex.EncodeToString(sum[:4])
			}
			all[strings.TrimPrefix(path, n.Root)] = state
			return nil
		})
		n.f.check(err)
	}
	return all
}
