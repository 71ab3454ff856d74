// Package units tests the files that are installed unchanged: systemd units and
// drop-ins, related files of systemd, manifests for the API server, and scripts for
// workload managers. Mistakes in them often have no visible effect.
//
// The tests do not start units, which would need a whole machine. They run
// systemd-analyze on a directory with the installed files.
package units

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// analyze runs systemd-analyze. Its commands security and verify do not need a running
// systemd, from version 250. If it is missing or too old, the test is skipped, or fails
// if E2E_REQUIRE is set.
func analyze(t *testing.T, args ...string) (output string, code int) {
	t.Helper()
	cmd := exec.Command("systemd-analyze", append([]string{"--no-pager"}, args...)...)
	if os.Geteuid() == 0 {
		// As root it would leave a file in /run/systemd of this machine.
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := cmd.CombinedOutput()
	if exit, ok := err.(*exec.ExitError); ok {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		require.Missing(t, err.Error()+"; it is in the package systemd")
	}
	return string(out), 0
}

const nobody = 65534

func release(t *testing.T) int {
	t.Helper()
	out, _ := analyze(t, "--version")
	m := regexp.MustCompile(`systemd (\d+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("unknown version of systemd: %s", out)
	}
	n, _ := strconv.Atoi(m[1])
	if n < 250 {
		require.Missing(t, fmt.Sprintf("systemd-analyze %d needs a running systemd; version 250 or newer is required", n))
	}
	return n
}

// installed is a directory with the installed files, and with the files of a system that
// systemd-analyze needs.
type installed string

func install(t *testing.T) installed {
	t.Helper()
	in := installed(t.TempDir())
	if err := os.Chmod(filepath.Dir(string(in)), 0o755); err != nil { // for another user
		t.Fatal(err)
	}
	for _, dir := range []string{"system", "system-preset"} {
		in.put(t, "usr/lib/systemd/"+dir, "systemd/"+dir)
	}
	for _, dir := range []string{"modules-load.d", "sysusers.d", "tmpfiles.d"} {
		in.put(t, "usr/lib/"+dir, "systemd/"+dir)
	}
	for _, unit := range []string{"sysinit", "basic", "shutdown", "network-online", "multi-user", "sockets"} {
		in.write(t, "usr/lib/systemd/system/"+unit+".target", "[Unit]\nDefaultDependencies=no\n", 0o644)
	}
	for _, program := range []string{"usr/bin/clientmountd", "usr/bin/nnf-dm", "bin/kill"} {
		in.write(t, program, "#!/bin/sh\n", 0o755)
	}
	return in
}

func (in installed) write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	path = filepath.Join(string(in), path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func (in installed) put(t *testing.T, to, from string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(string(in), to), os.DirFS(filepath.Join(root, from))); err != nil {
		t.Fatal(err)
	}
}

// add installs an example like an administrator.
func (in installed) add(t *testing.T, example string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, example))
	if err != nil {
		t.Fatal(err)
	}
	in.write(t, "etc/systemd/system/"+strings.TrimPrefix(example, "systemd/examples/"), string(text), 0o644)
}

var all = []string{"clientmountd.service", "nnf-dm.service", "nnf-dm.socket", "nnf-dm.timer"}

// verify returns the findings of systemd-analyze, without warnings about directives that
// this version does not support.
func (in installed) verify(t *testing.T) (found []string) {
	t.Helper()
	is := release(t)
	out, code := analyze(t, append([]string{"verify", "--man=no", "--root=" + string(in)}, all...)...)
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line != "" && !unknown(line, is) {
			found = append(found, line)
		}
	}
	if code != 0 && found == nil {
		found = append(found, "exit status "+strconv.Itoa(code))
	}
	return found
}

func TestVerify(t *testing.T) {
	for _, line := range install(t).verify(t) {
		t.Error(line)
	}
	for name, c := range map[string]struct{ drop, says string }{
		"unknown directive": {"[Service]\nProtectSytem=yes\n", "ProtectSytem"},
		"second command":    {"[Service]\nExecStart=/usr/bin/nnf-dm\n", "ExecStart"},
		"no such program":   {"[Service]\nExecStart=\nExecStart=/no/such/program\n", "/no/such/program"},
	} {
		t.Run(name, func(t *testing.T) {
			in := install(t)
			in.write(t, "etc/systemd/system/clientmountd.service.d/x.conf", c.drop, 0o644)
			if found := strings.Join(in.verify(t), "\n"); !strings.Contains(found, c.says) {
				t.Errorf("not found: %s", found)
			}
		})
	}
}

// Each example is valid.
func TestVerifyExamples(t *testing.T) {
	for _, file := range tree(t, "systemd/examples") {
		t.Run(strings.TrimPrefix(file, "systemd/examples/"), func(t *testing.T) {
			in := install(t)
			in.add(t, file)
			for _, line := range in.verify(t) {
				t.Error(line)
			}
		})
	}
}

// exposure returns the exposure level of systemd-analyze security, from 0 (safe) to 10.
func (in installed) exposure(t *testing.T, unit string) float64 {
	t.Helper()
	release(t)
	out, _ := analyze(t, "security", "--offline=yes", "--root="+string(in), unit)
	m := regexp.MustCompile(`Overall exposure level for ` + regexp.QuoteMeta(unit) + `: ([0-9.]+) `).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no exposure level: %s", out)
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestExposure(t *testing.T) {
	for _, c := range []struct {
		name, unit, example string
		most                float64
	}{
		{"clientmountd as shipped", "clientmountd.service", "", 5.2},
		{"clientmountd with the tight drop-in", "clientmountd.service", "systemd/examples/clientmountd.service.d/40-tight.conf", 4.7},
		{"nnf-dm as shipped", "nnf-dm.service", "", 1.9},
		{"nnf-dm with the drop-in for newer systemd", "nnf-dm.service", "systemd/examples/nnf-dm.service.d/45-newer-systemd.conf", 1.2},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := install(t)
			if c.example != "" {
				in.add(t, c.example)
			}
			got := in.exposure(t, c.unit)
			t.Logf("%.1f of %.1f", got, c.most)
			if got > c.most {
				t.Errorf("%.1f, want at most %.1f: see systemd-analyze security", got, c.most)
			}
		})
	}
	in := install(t)
	in.write(t, "etc/systemd/system/nnf-dm.service.d/x.conf", "[Service]\nProtectSystem=no\nUser=root\n", 0o644)
	if got := in.exposure(t, "nnf-dm.service"); got < 1.5 {
		t.Errorf("a unit without hardening has %.1f, so the limits are meaningless", got)
	}
}
