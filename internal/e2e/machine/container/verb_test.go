package container

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
)

// daemons lists the daemons with their names in result lines, the unit that is enabled, the package
// that they replace, and their units.
var daemons = []struct {
	name, described string
	enabled         string
	older           string // package
	units           []string
}{
	{"clientmountd", "Data Workflow Service (DWS) Client Mount Service", "clientmountd.service", "nnf-clientmount", []string{"clientmountd.service"}},
	{"nnf-dm", "Near-Node Flash (NNF) Data Movement Service", "nnf-dm.socket", "nnf-dm", []string{"nnf-dm.service", "nnf-dm.socket"}},
}

const (
	succeeded = ":\t\t\t\t\t[  OK  ]\n"
	hasFailed = ":\t\t\t\t\t[FAILED]\n"
)

// commandFeatures are features of the sub-commands that manage the units of the packages.
var commandFeatures = []feature{{"sub-commands", commandsOfThePackage}}

func commandsOfThePackage(t *testing.T, m *machine.Machine) {
	for _, d := range daemons {
		packaged := "/usr/lib/systemd/system/" + d.units[0] + " belongs to the package"
		m.Do("systemctl disable " + strings.Join(d.units, " "))
		for _, step := range []struct {
			verb  string
			code  int
			parts []string
		}{
			{"-h", 0, []string{"--kubernetes-service-host"}},
			{"version", 0, []string{"Version "}},
			{"status", 0, []string{"Service is stopped\n", d.units[0] + ": inactive (dead)"}},
			{"stop", 1, []string{"Stopping " + d.described + hasFailed, "already been stopped"}},
			{"install", 0, []string{"Install " + d.described + succeeded, packaged + ": enabled, no file written"}},
			{"install --log-level=debug", 0, []string{"the arguments are ignored (--log-level=debug)", "systemctl edit " + d.name}},
			{"start", 0, []string{"Starting " + d.described + succeeded}},
			{"start", 1, []string{"Starting " + d.described + hasFailed, "Service is already running"}},
			{"status", 0, []string{"Service (pid  ", ") is running...", d.units[0] + ": active (running)", "Reported: "}},
			{"stop", 0, []string{"Stopping " + d.described + succeeded}},
			{"start", 0, nil},
			{"remove", 0, []string{"Removing " + d.described + succeeded, packaged + " and is kept: to delete it, remove the package"}},
			{"status", 0, []string{"Service is stopped\n", "disabled"}},
		} {
			has(t, exits(t, m, step.code, d.name+" "+step.verb), step.parts...)
			if strings.HasPrefix(step.verb, "install") {
				m.Do("systemctl is-enabled " + d.enabled)
				m.Do("! systemctl is-active " + strings.Join(d.units, " "))
			}
		}
		m.Do("systemctl mask " + d.enabled)
		has(t, exits(t, m, 1, d.name+" start"), d.enabled+" is masked", "systemctl unmask "+d.enabled)
		m.Do("systemctl unmask " + d.enabled)
		has(t, exits(t, m, 1, asUser+d.name+" start"), "You must have root user privileges")
		if out := m.Do("find /etc/systemd/system -name '" + d.name + "*'"); out != "" {
			t.Errorf("left behind: %s", out)
		}
		m.Do("systemctl preset " + d.enabled)
	}
}

// bare returns a machine with only the programs.
func bare(t *testing.T) *machine.Machine {
	t.Helper()
	m := machine.Container(t)
	for _, d := range daemons {
		program(t, m, d.name)
	}
	program(t, m, "nnf-dmctl")
	return m
}

// program installs a program that make build-daemon has built.
func program(t *testing.T, m *machine.Machine, name string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(fixture.Root(t), "bin", name))
	if err != nil {
		t.Fatalf("%v: run make build-daemon", err)
	}
	path := m.Outside("/usr/bin/" + name) // replace the file, because the program may be running
	if err := errors.Join(os.WriteFile(path+".new", data, 0o755), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// TestBareMachine runs the sub-commands on a machine without the packages: install writes the
// units, and remove deletes them.
func TestBareMachine(t *testing.T) {
	m := bare(t)
	for _, d := range daemons {
		for _, verb := range []string{"status", "start", "stop", "remove"} {
			has(t, exits(t, m, 1, d.name+" "+verb), "Service is not installed")
		}
		out := m.Do(d.name + " install --log-level=debug")
		has(t, out, "Install "+d.described+succeeded)
		for _, unit := range d.units {
			has(t, out, "/etc/systemd/system/"+unit+": written")
		}
		m.Do("systemctl is-enabled " + d.enabled + " && ! systemctl is-active " + strings.Join(d.units, " "))
		has(t, exits(t, m, 1, d.name+" install"), "Service has already been installed", "systemctl edit "+d.name)
	}
	m.Do("id nnf-dm")
	m.Configure()
	for _, d := range daemons {
		m.Do(d.name + " start")
		has(t, m.Do(`tr '\0' ' ' </proc/$(systemctl show --value -p MainPID `+d.name+`)/cmdline`), "/usr/bin/"+d.name+" --log-level=debug")
		has(t, m.Do(d.name+" status"), "is running...", "enabled", "Reported: ")
	}
	m.Do(asUser + "nnf-dmctl version")
	for _, d := range daemons {
		m.Edit(d.name, "[Service]\nRestartSec=1\n")
		has(t, m.Do(d.name+" remove"), "Removing "+d.described+succeeded, "/etc/systemd/system/"+d.name+".service.d/override.conf is a local drop-in and is kept")
		m.Do("! pgrep -x " + d.name)
		if out := m.Do("find /etc/systemd/system /run/systemd -name '" + d.name + "*'"); out != "/etc/systemd/system/"+d.name+".service.d" {
			t.Errorf("left behind by remove: %s", out)
		}
	}
	if out := m.Do("systemctl --failed --no-legend; ls /run/nnf-dm.sock 2>&1 || :"); !strings.Contains(out, "No such file") || strings.Contains(out, "failed") {
		t.Errorf("after remove: %s", out)
	}
}

// TestWithoutPackages runs the commands of install.md for a machine without the packages. The
// parts of the source tree that they need are in the working directory.
func TestWithoutPackages(t *testing.T) {
	blocks := withoutQuestions(t, 2, manual.Commands(t, fixture.Root(t), "docs/install.md", "internal/e2e/machine/container TestWithoutPackages"))
	m := machine.Container(t)
	const tree = "/root/tree"
	for _, part := range []string{"bin/clientmountd", "bin/nnf-dm", "bin/nnf-dmctl", "etc", "packaging/man", "packaging/completion", "packaging/catalog"} {
		to := m.Outside(filepath.Join(tree, part))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-r", filepath.Join(fixture.Root(t), part), to).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	copyFiles, ok := strings.CutPrefix(blocks[0], "make build-daemon\n") // the tests use what it has built
	if !ok {
		t.Fatalf("the first line is not make build-daemon: %s", blocks[0])
	}
	m.Do("set -e; cd " + tree + "\n" + copyFiles)
	host, port, err := net.SplitHostPort(m.Fixture.Cluster.Address())
	if err != nil {
		t.Fatal(err)
	}
	m.Do("set -e\n" + strings.NewReplacer("10.0.0.5", host, "6443", port).Replace(blocks[1]))
	m.Configure()
	for _, d := range daemons {
		m.Do(d.name + " start")
		has(t, m.Do(`tr '\0' ' ' </proc/$(systemctl show --value -p MainPID `+d.name+`)/cmdline`), "--kubernetes-service-port="+port)
	}
	m.Do(asUser + "nnf-dmctl version")
	checkJournal(t, m)
}
