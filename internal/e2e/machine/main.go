// Package machine boots whole machines for tests: a container with systemd as its first
// process (half a second), or a virtual machine with its own kernel, NVMe namespaces, LVM and
// GFS2 (ten to thirty seconds, because every instruction is emulated by default). Both use one
// root file system, which prepare.sh creates once. Machines are separate from the host:
// everything that a test does in them ends with the lab in which they run.
//
// Tests run scripts in a machine and check their output. The API server is that of the lab;
// machines reach it at the same address as the host.
//
// It must not depend on what a test is about.
package machine

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// WantVar is the environment variable that enables the tests with machines.
const WantVar = "E2E_MACHINE"

var (
	cache  string // directory that prepare.sh has created
	reason string // why machines cannot be used; "": they can
)

// Main runs the tests. TestMain calls it: os.Exit(machine.Main(m, tools...)). It requires the
// files of prepare.sh, and the tools.
func Main(m *testing.M, tools ...string) int {
	cache, reason = find(tools)
	if reason != "" {
		fmt.Fprintln(os.Stderr, "e2e: not run:", reason)
		if require.Set() {
			return 1
		}
		return m.Run()
	}
	return fixture.Main(m)
}

// find returns the directory that prepare.sh has created, or why machines cannot be used.
func find(tools []string) (dir, why string) {
	if os.Getenv(WantVar) == "" {
		return "", "whole machines are booted by make e2e (" + WantVar + "=1)"
	}
	if os.Geteuid() != 0 {
		return "", "root is required"
	}
	root, err := lab.Repository()
	if err != nil {
		return "", err.Error()
	}
	out, err := exec.Command(filepath.Join(root, "internal/e2e/machine/prepare.sh"), "--name").Output()
	dir = strings.TrimSpace(string(out))
	if err != nil {
		return "", "cannot run prepare.sh: " + err.Error()
	}
	if _, err := os.Stat(dir); err != nil {
		return "", "there is no root file system: run internal/e2e/machine/prepare.sh, or make e2e"
	}
	for _, t := range tools {
		if _, err := exec.LookPath(t); err != nil {
			return "", fmt.Sprintf("%s is missing: run make e2e as root, which installs it", t)
		}
	}
	if slices.Contains(tools, "systemd-nspawn") {
		if why := overlay(); why != "" {
			return "", why
		}
	}
	return dir, ""
}

// overlay returns why an overlay of the root file system cannot be mounted here, or "". It
// cannot if the directory for temporary files is on an overlay.
func overlay() string {
	const try = `d=$(mktemp -d); trap 'rm -rf "$d"' EXIT; mkdir "$d/lower" "$d/upper" "$d/work" "$d/root"
unshare --mount mount -t overlay overlay -o "lowerdir=$d/lower,upperdir=$d/upper,workdir=$d/work" "$d/root"`
	if out, err := exec.Command("/bin/sh", "-ec", try).CombinedOutput(); err != nil {
		return fmt.Sprintf("cannot mount an overlay: %v %s", err, bytes.TrimSpace(out))
	}
	return ""
}

// Need skips a test if machines cannot be used.
func Need(t testing.TB) {
	t.Helper()
	if reason != "" {
		t.Skip("not run: " + reason)
	}
}
