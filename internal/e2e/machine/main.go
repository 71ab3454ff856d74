// Package machine boots whole machines for tests: systemd as the first process
// in a container (half a second), or a virtual machine with its own kernel,
// NVMe namespaces, LVM and GFS2 (ten to thirty seconds, as every instruction is
// emulated unless told otherwise). Both come from one root file system, which
// prepare.sh makes once. Nothing of it is the host's: what a test does inside ends
// with the lab in which the machine runs.
//
// Tests run scripts inside and look at what comes out. The API server is the
// lab's; machines reach it at the address that the host has for it.
//
// It must not know what a test is about.
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

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// WantVar asks for the machines: without it a plain go test boots nothing.
const WantVar = "E2E_MACHINE"

var (
	folder string // what prepare.sh has made
	whyNot string
)

// Main is what TestMain calls: os.Exit(machine.Main(m, tools...)). It needs what
// prepare.sh makes, and the tools.
func Main(m *testing.M, tools ...string) int {
	folder, whyNot = find(tools)
	if whyNot != "" {
		fmt.Fprintln(os.Stderr, "e2e: not run:", whyNot)
		if os.Getenv(world.RequireVar) != "" {
			return 1
		}
		return m.Run()
	}
	return world.Main(m)
}

// find returns the directory with the machine, or why there is none.
func find(tools []string) (dir, why string) {
	if os.Getenv(WantVar) == "" {
		return "", "whole machines are booted by make e2e (" + WantVar + "=1)"
	}
	if os.Geteuid() != 0 {
		return "", "root is needed"
	}
	root, err := lab.Repository()
	if err != nil {
		return "", err.Error()
	}
	out, err := exec.Command(filepath.Join(root, "internal/e2e/machine/prepare.sh"), "--name").Output()
	dir = strings.TrimSpace(string(out))
	if err != nil {
		return "", "prepare.sh does not run: " + err.Error()
	}
	if _, err := os.Stat(dir); err != nil {
		return "", "no machine has been made: run internal/e2e/machine/prepare.sh, or make e2e"
	}
	for _, t := range tools {
		if _, err := exec.LookPath(t); err != nil {
			return "", fmt.Sprintf("there is no %s: run make e2e as root, which installs it", t)
		}
	}
	if slices.Contains(tools, "systemd-nspawn") {
		if why := overlay(); why != "" {
			return "", why
		}
	}
	return dir, ""
}

// overlay says why the files of a container cannot be laid over the root file
// system here, as where temporary files are on an overlay themselves.
func overlay() string {
	const try = `d=$(mktemp -d); trap 'rm -rf "$d"' EXIT; mkdir "$d/lower" "$d/upper" "$d/work" "$d/root"
unshare --mount mount -t overlay overlay -o "lowerdir=$d/lower,upperdir=$d/upper,workdir=$d/work" "$d/root"`
	if out, err := exec.Command("/bin/sh", "-ec", try).CombinedOutput(); err != nil {
		return fmt.Sprintf("an overlay cannot be mounted: %v %s", err, bytes.TrimSpace(out))
	}
	return ""
}

// Need skips a test for which there is no machine.
func Need(t testing.TB) {
	t.Helper()
	if whyNot != "" {
		t.Skip("not run: " + whyNot)
	}
}
