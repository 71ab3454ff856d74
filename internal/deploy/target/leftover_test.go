package target

import (
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

const oldUnit = `[Unit]
Description=Data Workflow Service (DWS) Client Mount Service
Requires=network-online.target
After=network-online.target

[Service]
PIDFile=/var/run/clientmountd.pid
ExecStartPre=/bin/rm -f /var/run/clientmountd.pid
ExecStart=/usr/bin/clientmountd --kubernetes-service-host=10.0.0.5
Restart=on-failure

[Install]
WantedBy=multi-user.target
`

const oldOverride = `[Service]
ExecStart=
ExecStart=/usr/bin/clientmountd \
  --kubernetes-service-host=10.0.0.5 \
  --kubernetes-service-port=6443 \
  --service-token-file=/etc/client-mount/service.token \
  --service-cert-file=/etc/client-mount/service.cert
Environment=GOGC=off
Environment=GOMEMLIMIT=20MiB
`

func TestUnitOwner(t *testing.T) {
	for _, tt := range []struct {
		name, bin, text string
		want            owner
	}{
		{"earlier daemon", "clientmountd", oldUnit, ownerInstaller},
		{"other daemon", "nnf-dm", oldUnit, ownerAdministrator},
		{"edited", "clientmountd", strings.Replace(oldUnit, "Restart=", "MemoryMax=1G\nRestart=", 1), ownerAdministrator},
		{"install of this program", "clientmountd", "# Written by clientmountd install. x\n" + oldUnit, ownerProgram},
		{"install of another program", "nnf-dm", "# Written by clientmountd install. x\n", ownerAdministrator},
		{"administrator", "clientmountd", "[Service]\nExecStart=/usr/bin/clientmountd\n", ownerAdministrator},
		{"empty", "clientmountd", "", ownerAdministrator},
	} {
		if got := unitOwner(tt.bin, tt.text); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestDropInOwner(t *testing.T) {
	d, _ := product.Of("clientmountd")
	path := d.OlderDropIn()
	for _, tt := range []struct {
		name, path, text string
		want             owner
	}{
		{"installer", path, oldOverride, ownerInstaller},
		{"other name", strings.Replace(path, "override", "site", 1), oldOverride, ownerAdministrator},
		{"edited", path, oldOverride + "MemoryMax=1G\n", ownerAdministrator},
		{"only environment", path, "[Service]\nEnvironment=GOGC=off\n", ownerAdministrator},
		{"other program", path, strings.ReplaceAll(oldOverride, "/usr/bin/clientmountd", "/opt/clientmountd"), ownerAdministrator},
		{"nnf-deploy", d.DropIn(), "[Service]\n", ownerDeploy},
	} {
		if got := dropInOwner(&d, tt.path, tt.text); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// The files of an earlier installer are renamed, and restored if the new version does not
// become ready. The administrator's files are kept.
func TestFilesOfEarlierInstaller(t *testing.T) {
	const unit, dropIns = "etc/systemd/system/clientmountd.service", "etc/systemd/system/clientmountd.service.d/"
	s := newTestNode(t)
	s.Put(unit, oldUnit, 0o644)
	s.Put(dropIns+"override.conf", oldOverride, 0o644)
	s.Put(dropIns+"99-site.conf", "[Service]\nExecStart=\nExecStart=/usr/bin/clientmountd --log-level=debug\n", 0o644)
	s.Put("usr/bin/clientmountd", program("old", "exit 0"), 0o755)
	s.Put("run/fake/active.clientmountd.service", "active\n", 0o644)
	s.Put("run/fake/enabled.clientmountd.service", "enabled\n", 0o644)
	before := s.state()

	if _, err := s.apply(wanted(s.bare("1", "exit 1"))); err == nil {
		t.Fatal("no error")
	}
	if after := s.state(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}

	w := wanted(s.packages("1", "exit 0", ""))
	p := s.plan(w)
	for _, want := range []string{"retire /" + unit, "retire /" + dropIns + "override.conf", "install clientmountd-1-1.x86_64"} {
		if !strings.Contains(changes(p), want+"\n") {
			t.Errorf("%q is not among\n%s", want, changes(p))
		}
	}
	for _, want := range []string{"/" + dropIns + "99-site.conf is your own file and is kept: its ExecStart overrides that of nnf-deploy", "/etc/client-mount/service.token is no longer used"} {
		if !slices.ContainsFunc(p.Notes, func(n string) bool { return strings.HasPrefix(n, want) }) {
			t.Errorf("%q has no %q", p.Notes, want)
		}
	}
	w.Daemons[0].Name = "client-mount"
	if p := s.plan(w); strings.Contains(strings.Join(p.Notes, "\n"), "is no longer used") {
		t.Errorf("a note about the token that is still used: %q", p.Notes)
	}
	w.Daemons[0].Name = "clientmountd"
	s.install(w)
	if s.Get(unit) != "" || s.Get(dropIns+"override.conf") != "" || s.Get(unit+".retired-by-nnf-deploy") != oldUnit || s.Get(dropIns+"override.conf.retired-by-nnf-deploy") != oldOverride {
		t.Error("the files were not renamed")
	}
	if s.Get(dropIns+"99-site.conf") == "" {
		t.Error("a file of the administrator was removed")
	}
	if p := s.plan(w); !p.Empty() {
		t.Errorf("a second run:\n%s", changes(p))
	}
}

// When packages replace programs, the units of "PROGRAM install" are removed, because they
// would hide those of the packages.
func TestFromProgramsToPackages(t *testing.T) {
	s := newTestNode(t)
	s.install(wanted(s.bare("1", "exit 0")))
	w := wanted(s.packages("2", "exit 0", ""))
	s.install(w)
	if s.Get("etc/systemd/system/clientmountd.service")+s.Get("etc/systemd/system/nnf-dm.socket") != "" {
		t.Error("a unit of \"PROGRAM install\" was not removed")
	}
	s.nothingStaged()
	if p := s.plan(w); !p.Empty() {
		t.Errorf("a second run:\n%s", changes(p))
	}
	// Programs do not replace packages.
	r, err := Probe(t.Context(), s.shell, wanted(s.bare("3", "exit 0")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Diff(wanted(s.bare("3", "exit 0")), r); err == nil || !strings.Contains(err.Error(), "/usr/bin/clientmountd belongs to the package clientmountd-2-1.x86_64") {
		t.Errorf("%v", err)
	}
}

// interrupted makes what a run that was killed after the staging leaves.
func (s *testNode) interrupted() {
	s.t.Helper()
	s.Put("var/lib/nnf-deploy/stage/manifest", "file m0 0600 root:root /etc/clientmountd/service.token\n", 0o600)
	s.Put("var/lib/nnf-deploy/stage/moved", "moved /usr/bin/nnf-dm\n", 0o600)
	s.Put("var/lib/nnf-deploy/lock", "", 0o600)
	s.Put("etc/clientmountd/service.token.nnf-deploy-new", "", 0o600)
	s.Put("usr/bin/nnf-dm.nnf-deploy-old", "", 0o600)
}

// The next run removes what a killed one has left, even if the node has everything else already.
func TestLeftoversOfKilledRun(t *testing.T) {
	s := newTestNode(t)
	w := wanted(s.packages("1", "exit 0", ""))
	s.install(w)
	s.restarted()
	s.interrupted()
	if p := s.plan(w); changes(p) != "remove /var/lib/nnf-deploy/stage (an earlier run was interrupted)\n" {
		t.Errorf("%s", changes(p))
	}
	s.install(w)
	s.nothingStaged()
	if p := s.plan(w); !p.Empty() {
		t.Errorf("%s", changes(p))
	}
	if got := s.restarted(); len(got) != 0 {
		t.Errorf("restarted: %q", got)
	}

	s.uninstall(w)
	s.interrupted()
	s.uninstall(w)
	s.nothingStaged()
	s.nothingKept()

	// A failed first run has only the lock.
	s.Put("var/lib/nnf-deploy/lock", "", 0o600)
	s.uninstall(w)
	s.nothingKept()
	if p, err := s.remove(w, false); err != nil || !p.Empty() {
		t.Errorf("%v %s", err, changes(p))
	}
}
