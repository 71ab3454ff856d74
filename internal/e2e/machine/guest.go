package machine

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// guest is what is laid into a machine so that the test can reach it.
type guest struct {
	agent string            // the program, on this machine
	at    string            // where it will be inside
	units map[string]string // systemd units by name, wanted by multi-user.target
	files map[string]string // further files of this machine, by their name inside
}

// newGuest has an agent that serves the socket or port. It is built on first
// use.
func newGuest(l *lab.Lab, at, serve string) (*guest, error) {
	g := &guest{agent: filepath.Join(l.Dir, "agent"), at: at, units: map[string]string{}}
	if _, err := os.Stat(g.agent); err != nil {
		root, err := repository()
		if err != nil {
			return nil, err
		}
		cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", g.agent, "./internal/e2e/machine/agent")
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build the agent: %w: %s", err, out)
		}
	}
	// What a script has started lives on when the agent ends, as after a login.
	g.units["e2e-agent.service"] = unit("the test's hand", "",
		"ExecStart="+at+" serve "+serve, "KillMode=process", "Restart=always", "RestartSec=100ms")
	return g, nil
}

// network gives a virtual machine its address, and the host's API server the
// loopback address that the server's certificate names.
func (g *guest) network(apiServer string) {
	_, port, _ := strings.Cut(apiServer, ":")
	g.units["e2e-network.service"] = unit("the emulator's network", "Before=network.target network-online.target",
		"Type=oneshot", "RemainAfterExit=yes",
		`ExecStart=/bin/sh -ec 'n=0; until [ -e /sys/class/net/eth0 ]; do n=$$((n+1)); [ $$n -lt 600 ]; sleep 0.1; done; `+
			`ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2'`)
	g.units["e2e-api.service"] = unit("the host's API server", "After=e2e-network.service\nBefore=network-online.target",
		"ExecStart="+g.at+" forward "+apiServer+" 10.0.2.2:"+port, "Restart=always", "RestartSec=100ms")
}

func unit(description, order string, service ...string) string {
	return "[Unit]\nDescription=End-to-end test: " + description + "\n" + order + "\n[Service]\n" + strings.Join(service, "\n") + "\n"
}

// write lays the units into a folder of units, and the program where it is
// told.
func (g *guest) write(unitDir, program string) error {
	wants := filepath.Join(unitDir, "multi-user.target.wants")
	for _, dir := range []string{wants, filepath.Dir(program)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for name, text := range g.units {
		if err := os.WriteFile(filepath.Join(unitDir, name), []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Symlink("../"+name, filepath.Join(wants, name)); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(g.agent)
	if err != nil {
		return err
	}
	return os.WriteFile(program, data, 0o755)
}

// File is one that is laid into a container before it boots: a link when it has
// the mode of one, with Text as target.
type File struct {
	Path string
	Mode fs.FileMode
	Text string
}

func (f File) write(root string) error {
	path := filepath.Join(root, f.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if f.Mode&fs.ModeSymlink != 0 {
		return os.Symlink(f.Text, path)
	}
	return os.WriteFile(path, []byte(f.Text), f.Mode)
}
