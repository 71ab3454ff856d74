package container

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/faketools/record"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// TestGuides runs the commands of the guides on the installed node compute-07, in the situations
// for which they are meant. Every line of a block must succeed. Blocks that no situation takes
// run with both daemons active before and after.
func TestGuides(t *testing.T) {
	machine.Need(t)
	m := machine.Containers(t, nil, "compute-07")[0]
	if f := m.Fixture.Features; !f.Loop || !f.XFS {
		require.Missing(t, "needs loop devices and xfs")
	}
	m.Install()
	m.Configure()
	t.Cleanup(func() { checkJournal(t, m) })
	m.Fixture.Profile = "job7-0"
	g := &guide{storage: newStorage(t, m), blocks: manual.Set{}}
	for _, page := range []string{"copy.md", "credentials.md", "faq.md", "install.md", "storage-profiles.md", "monitoring.md", "stuck-mount.md", "tuning.md", "units.md"} {
		g.blocks[page] = manual.Commands(t, fixture.Root(t), "docs/"+page, "internal/e2e/machine/container TestGuides")
	}
	program(t, m, "kubectl")
	admin, err := os.ReadFile(filepath.Join(m.Fixture.Cluster.Dir, "admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	m.Put("/root/.kube/config", 0o600, admin)

	for _, situation := range []struct {
		name string
		run  func(*guide)
	}{
		{"a mount is busy", busyMount},
		{"a command hangs", hangingCommand},
		{"an orphan", orphan},
		{"a profile is wrong", wrongProfile},
		{"a daemon does not start", doesNotStart},
		{"credentials", installCredentials},
		{"objects of the cluster", clusterObjects},
		{"a drop-in", editUnit},
		{"a copy", copyInProgress},
		{"both daemons run", otherBlocks},
	} {
		t.Run(situation.name, func(t *testing.T) {
			g := *g
			g.t, g.m = t, m.For(t)
			defer asInstalled(t, g.m)
			situation.run(&g)
		})
	}
}

// guide runs blocks of commands of the guides on a node. Its root user has the kubeconfig of the
// cluster's administrator.
type guide struct {
	storage
	blocks manual.Set // those that have not run
}

// run runs the block of a page that contains a text, with replacements as for strings.NewReplacer,
// and returns its output. The home directory of root is the working directory.
func (g *guide) run(page, part string, replacements ...string) string {
	g.t.Helper()
	block := g.blocks.Take(g.t, page, part)
	return g.m.Do("journalctl --sync; export HOME=/root; cd; set -e\n" + strings.NewReplacer(replacements...).Replace(block))
}

// A process of alice keeps the mount of job7 in use.
func busyMount(g *guide) {
	g.start()
	s := g.m.Fixture
	mount, _ := g.xfs("job7-0", 3)
	s.MountAndWait("job7-xfs", mount)
	g.m.Do("runuser -u alice -- sh -c 'cd /mnt/nnf/job7-0 && exec sleep 1000' >/dev/null 2>&1 </dev/null &")
	pid := g.m.Await("the process runs", "pgrep -u alice -x sleep")
	s.Want("job7-xfs", "unmounted")
	s.AwaitError("job7-xfs")
	holder := "in use by pid " + pid + " (sleep, uid 1001"

	has(g.t, g.run("stuck-mount.md", "-x CLIENTMOUNT=NAME", "NAME", "job7-xfs"), "job7-xfs ", holder, "API server answers", "Subject: ")
	has(g.t, g.run("stuck-mount.md", "EVENT=busy -o verbose"), "HOLDER_PID="+pid, "HOLDER_UID=1001")
	has(g.t, g.run("stuck-mount.md", "systemctl status clientmountd"), "job7-xfs ", "API server answers", "compute-07")
	has(g.t, g.run("faq.md", "EVENT=busy", "NAME", "job7-xfs"), holder, " busy ")
	has(g.t, g.run("credentials.md", "journalctl -u nnf-dm -b -p warning -x"), "What to do: ")

	g.m.Setting("clientmountd", "30-busy", "[mount]\nbusy = \"terminate\"\nbusy_grace = \"1s\"\n")
	// The records appear after the reload.
	out := g.run("stuck-mount.md", "EVENT=signalled", "journalctl", "until journalctl -u clientmountd -b EVENT=signalled | grep -q SIGTERM; do sleep 0.1; done\njournalctl --sync; journalctl")
	has(g.t, out, "HOLDER_PID="+pid, "HOLDER_UID=1001", "SIGNAL=SIGTERM")
	s.Await("job7-xfs", "unmounted")
	s.Delete("job7-xfs")
}

// lvchange hangs in the kernel, because it writes to a frozen file system.
func hangingCommand(g *guide) {
	g.start()
	s := g.m.Fixture
	frozen, _ := g.xfs("frozen", 4)
	mount, _ := g.xfs("job7-0", 3)
	s.MountAndWait("frozen", frozen)
	g.m.Do("fsfreeze -f /mnt/nnf/frozen")
	thawed := false
	thaw := func() {
		if !thawed {
			g.m.Do("fsfreeze -u /mnt/nnf/frozen")
			thawed = true
		}
	}
	defer thaw()
	g.faults(&record.Fault{Tool: "lvchange", Touch: "/mnt/nnf/frozen/x"})
	s.Mount("job7-xfs", mount)
	// Other commands can take longer than their limit on a slow disk, and end later.
	pid := g.m.Await("the record is in the journal", `journalctl --sync; journalctl -u clientmountd -b EVENT=stuck -o json | jq -r 'select(.COMMAND | startswith("lvchange")) | .PID' | tail -n 1 | grep .`)
	g.m.Await("the stack shows a function of the kernel", "grep '^\\[<0>\\] ' /proc/"+pid+"/stack") // it can be empty for a moment
	has(g.t, g.run("stuck-mount.md", "EVENT=stuck", "PID", pid), "lvchange", "What to do: ")
	g.faults()
	thaw()
	s.Await("job7-xfs", "mounted")
	s.Delete("job7-xfs")
	s.Delete("frozen")
}

// The finalizer of a ClientMount was removed while clientmountd was stopped.
func orphan(g *guide) {
	g.start()
	s := g.m.Fixture
	mount, volume := g.xfs("job7-0", 3)
	s.MountAndWait("job7-xfs", mount)
	o, err := s.Cluster.Get(s.Context(s.Patience), "ClientMount", s.Node, "job7-xfs")
	s.Must(err)
	g.m.Do("systemctl stop clientmountd")
	s.Remove("job7-xfs")
	s.Must(s.Cluster.DropFinalizers(s.Context(s.Patience), "ClientMount", s.Node, "job7-xfs"))
	g.m.Do("systemctl start clientmountd")
	g.m.Await("the record is in the journal", "journalctl --sync; journalctl -u clientmountd -b EVENT=orphan -o cat | grep -q .")
	out := g.run("stuck-mount.md", "EVENT=orphan", "PATH", "/mnt/nnf/job7-0", "VG/LV", volume, "UID", o.String("metadata", "uid"))
	has(g.t, out, "PATHS=/mnt/nnf/job7-0")
	g.m.Do("! findmnt /mnt/nnf/job7-0 && [ -z \"$(find /run/clientmountd/mounts /dev/mapper -mindepth 1)\" ]")
}

// The pinned profile of the workflow has an option that mount refuses.
func wrongProfile(g *guide) {
	g.start()
	s := g.m.Fixture
	mount, _ := g.xfs("job7-0", 3)
	s.UseProfile(fixture.ProfileSpec{Options: "-o wrong"})
	s.Mount("job7-xfs", mount)
	s.AwaitError("job7-xfs")
	out := g.run("storage-profiles.md", "kubectl edit", "NAME", "job7-xfs", "kubectl edit", "KUBE_EDITOR=\"sed -i 's/-o wrong//'\" kubectl edit")
	has(g.t, out, "pinned_storage_profile_name: job7-0", "job7-0 edited")
	s.Await("job7-xfs", "mounted")
	s.Delete("job7-xfs")
}

// The configuration has an unknown key. Two of the commands report that by their exit code.
func doesNotStart(g *guide) {
	g.m.Setting("clientmountd", "20-test", "[mount]\nroot = [\"/mnt\"]\n")
	exits(g.t, g.m, 1, "systemctl start clientmountd")
	out := g.run("faq.md", "clientmountd config check\nsystemctl status clientmountd", "config check", "config check || [ $? = 1 ]", "status clientmountd", "status clientmountd || [ $? = 3 ]")
	has(g.t, out, "unknown key", "activating (auto-restart)", "]: clientmountd: error: ")
}

// The credentials are in the current directory.
func installCredentials(g *guide) {
	for _, d := range daemons {
		for _, file := range []string{"service.token", "service.cert"} {
			g.m.Do("install -D /etc/" + d.name + "/" + file + " /root/credentials/" + d.name + "/" + file)
		}
	}
	g.m.Do("rm /etc/{clientmountd,nnf-dm}/service.*")
	g.run("credentials.md", "credentials/clientmountd/service.*")
	g.m.Do("systemctl start clientmountd nnf-dm.socket")

	g.m.Do("rm /etc/{clientmountd,nnf-dm}/service.token")
	g.run("credentials.md", "root credentials/clientmountd/service.token")
	for _, d := range daemons {
		g.m.Do("cmp /etc/" + d.name + "/service.token /root/credentials/" + d.name + "/service.token")
	}
	g.m.Do("runuser -u nnf-dm -- cat /etc/nnf-dm/service.token >/dev/null && ! runuser -u bob -- cat /etc/nnf-dm/service.token")

	g.m.Do("install -D -m 0600 /root/credentials/nnf-dm/service.token /etc/nnf-data-movement/service.token")
	g.run("credentials.md", "chgrp -R nnf-dm")
	g.m.Do("runuser -u nnf-dm -- cat /etc/nnf-data-movement/service.token >/dev/null && ! runuser -u bob -- cat /etc/nnf-data-movement/service.token")
}

// The manifests of the packages are applied to the cluster.
func clusterObjects(g *guide) {
	has(g.t, g.run("credentials.md", "kubectl apply"), "nnf-clientmount", "nnf-dm-daemon")
	has(g.t, g.run("tuning.md", "flowcontrol"), "PriorityLevelName")
}

// An administrator edits the unit with the drop-in of the guide.
func editUnit(g *guide) {
	g.m.Do("systemctl start clientmountd")
	g.m.Put("/root/drop-in", 0o644, []byte("[Service]\nExecStart=\nExecStart=/usr/bin/clientmountd --log-level=debug\n"))
	g.run("units.md", "systemctl edit", "systemctl edit clientmountd", "SYSTEMD_EDITOR='cp /root/drop-in' script -qec 'systemctl edit clientmountd' /dev/null")
	has(g.t, g.m.Do(`tr '\0' ' ' </proc/$(systemctl show --value -p MainPID clientmountd)/cmdline`), "--log-level=debug")
}

// The rabbit copies for alice, and does not finish. bob has tried to copy for her workflow.
func copyInProgress(g *guide) {
	j := newJob(g.t, g.m, "job7")
	g.m.Do("systemctl start nnf-dm.socket && runuser -u alice -- touch " + j.Mount(0) + "/held")
	faults(g.t, j, "*/held hold=true")
	id := g.m.Do("runuser -u alice -- nnf-dmctl --workflow job7 copy " + j.Mount(0) + "/held " + fixture.Global + "/held")
	has(g.t, exits(g.t, g.m, 3, "runuser -u bob -- nnf-dmctl --workflow job7 copy "+j.Mount(0)+"/held "+fixture.Global+"/"), "could not find workflow")
	has(g.t, g.run("faq.md", "-u clientmountd WORKFLOW=job7"), "default/job7", "What to do: ")
	has(g.t, g.run("copy.md", "EVENT=dm-refused"), "default/job7", "What to do: ")
	has(g.t, g.run("faq.md", "cancel --wait ID", "ID", id), id, "cancelled")
	g.m.Fixture.Delete("default-job7-0") // clientmountd has not mounted it
}

// Both daemons run, before and after each block.
func otherBlocks(g *guide) {
	host, port, err := net.SplitHostPort(g.m.Fixture.Cluster.Address())
	if err != nil {
		g.t.Fatal(err)
	}
	for _, page := range slices.Sorted(maps.Keys(g.blocks)) {
		for _, block := range slices.Clone(g.blocks[page]) {
			first, _, _ := strings.Cut(block, "\n")
			g.t.Run(page+" "+first, func(t *testing.T) {
				g := *g
				g.t, g.m = t, g.m.For(t)
				defer asInstalled(t, g.m)
				defer g.m.Do("rm -rf /run/systemd/system/clientmountd.service.d /etc/clientmountd/config.d/{log,metrics}.toml /var/lib/node_exporter")
				g.m.Do("systemctl start clientmountd nnf-dm.socket")
				g.run(page, block, "10.0.0.5", host, "6443", port)
				g.m.Do("systemctl is-active clientmountd nnf-dm.socket && clientmountd config check && nnf-dm config check")
			})
		}
	}
}
