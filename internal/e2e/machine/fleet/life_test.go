package fleet

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
)

// The life cycle of a system: dry run, installation with problems on half of the nodes, second
// run after the repair, run without changes, upgrade, downgrade, new tokens, uninstall.
func TestLife(t *testing.T) {
	f := New(t, 8)
	older, newer := f.Releases()
	const plain, offered, full, dead, stranger, slow, sick, taken = 0, 1, 2, 3, 4, 5, 6, 7
	f.Repository(f.Nodes[offered])
	f.Distribution(without(f.Nodes, f.Nodes[offered])...)
	f.Nodes[taken].earlier()
	bare := f.Nodes[plain].Files()

	t.Run("dry run", func(t *testing.T) {
		f := f.For(t)
		var before []string
		for _, n := range f.Nodes {
			before = append(before, n.Files())
		}
		a := f.DeployJSON("install", append(older.PackageArguments(), "--dry-run")...)
		expect(t, a, 0, all(f.Nodes, "differs"))
		for i, n := range f.Nodes {
			if now := n.Files(); now != before[i] {
				t.Errorf("%s: the dry run has changed files:\n%s", n.Name, difference(before[i], now))
			}
			if changes := strings.Join(a.Nodes[n.Name].Changes, "\n"); !contains(changes, "clientmountd-0.1.0") || !contains(changes, "/etc/nnf-dm/service.token") {
				t.Errorf("%s: the difference is %q", n.Name, changes)
			}
		}
	})

	t.Run("install", func(t *testing.T) {
		f := f.For(t)
		f.Set(f.Nodes[dead], Faults{Dead: true})
		f.Set(f.Nodes[slow], Faults{Rate: 3 << 20, Latency: time.Millisecond})
		f.WrongHostKeys(f.Nodes[stranger])
		f.Nodes[full].Do("mkdir -p /var/lib/nnf-deploy && mount -t tmpfs -o size=1m tmpfs /var/lib/nnf-deploy")
		// A drop-in with which the daemon does not start.
		f.Nodes[sick].Put("/etc/systemd/system/clientmountd.service.d/90-site.conf", 0o644, []byte("[Service]\nProtectSystem=full\n"))
		a := f.DeployJSON("install", older.PackageArguments()...)
		want := all(f.Nodes, "ok")
		causes := map[int]string{dead: "refused", stranger: "host key", full: "is full", sick: "not ready"}
		for i := range causes {
			want[f.Nodes[i].Name] = "failed"
		}
		expect(t, a, 1, want)
		for i, cause := range causes {
			if o := a.Nodes[f.Nodes[i].Name]; !contains(strings.ToLower(o.Cause), cause) || o.Hint == "" {
				t.Errorf("%s: the cause is %q, which should contain %q, and the hint is %q", o.Node, o.Cause, cause, o.Hint)
			}
		}
		if o := a.Nodes[f.Nodes[sick].Name]; !contains(strings.Join(o.Journal, "\n"), "mount namespace") || contains(strings.Join(o.Journal, "\n"), "Unknown key") {
			t.Errorf("the journal of the daemon that does not start: %q", o.Journal)
		}
		if o := a.Nodes[f.Nodes[taken].Name]; !contains(strings.Join(o.Notes, "\n"), "/etc/client-mount/service.token") {
			t.Errorf("the token that the earlier installer left is not reported: %q", o.Notes)
		}
		for _, i := range []int{plain, offered, slow, taken} {
			healthy(t, f, f.Nodes[i], older)
		}
		for _, i := range []int{dead, stranger, full} {
			if got := f.Nodes[i].Release(older); got != "none" {
				t.Errorf("%s has %s", f.Nodes[i].Name, got)
			}
		}
		f.Nodes[plain].serves("installed")
		f.Nodes[taken].serves("taken-over")
	})

	f.Nodes[full].Do("umount /var/lib/nnf-deploy")
	f.Nodes[sick].Do("rm /etc/systemd/system/clientmountd.service.d/90-site.conf; systemctl daemon-reload; systemctl stop clientmountd") // systemd would start it again every few seconds
	t.Run("after the repair", func(t *testing.T) {
		f := f.For(t)
		good := []*Node{f.Nodes[plain], f.Nodes[offered], f.Nodes[slow], f.Nodes[taken]}
		before := processes(good)
		want := all(f.Nodes, "ok")
		for _, n := range good {
			want[n.Name] = "unchanged"
		}
		expect(t, f.DeployJSON("install", older.PackageArguments()...), 0, want)
		for name, now := range processes(good) {
			if now != before[name] {
				t.Errorf("%s: %q before, %q now", name, before[name], now)
			}
		}
		for _, n := range f.Nodes {
			healthy(t, f, n, older)
		}
	})
	if t.Failed() {
		return // the following tests depend on it
	}

	t.Run("nothing to do", func(t *testing.T) {
		f := f.For(t)
		before, files := processes(f.Nodes), f.Nodes[plain].Files()
		f.Connections()
		a := f.DeployJSON("install", older.PackageArguments()...)
		expect(t, a, 0, all(f.Nodes, "unchanged"))
		for name, now := range processes(f.Nodes) {
			if now != before[name] {
				t.Errorf("%s: %q before, %q now", name, before[name], now)
			}
		}
		for name, count := range f.Connections() {
			if count != 1 {
				t.Errorf("%s: %d connections, want 1", name, count)
			}
		}
		if now := f.Nodes[plain].Files(); now != files {
			t.Errorf("the run has changed files:\n%s", difference(files, now))
		}
	})

	// Upgrade and downgrade. Slow lines show the effect of --parallel.
	took := map[string]time.Duration{}
	for _, way := range []struct {
		name, parallel string
		to             *Release
	}{{"upgrade, one node at a time", "1", newer}, {"downgrade, all nodes in parallel", "8", older}} {
		t.Run(way.name, func(t *testing.T) {
			f := f.For(t)
			for _, n := range f.Nodes {
				f.Set(n, Faults{Rate: 8 << 20, Latency: 2 * time.Millisecond})
			}
			before := processes(f.Nodes)
			a := f.DeployJSON("install", append(way.to.PackageArguments(), "--parallel", way.parallel)...)
			took[way.parallel] = a.Took
			expect(t, a, 0, all(f.Nodes, "ok"))
			now := processes(f.Nodes)
			for _, n := range f.Nodes {
				healthy(t, f, n, way.to)
				if now[n.Name] == before[n.Name] {
					t.Errorf("%s: the daemon is still %q", n.Name, now[n.Name])
				}
			}
			f.Nodes[offered].serves("with-" + strings.ReplaceAll(way.to.Version, ".", "-"))
		})
	}
	t.Logf("eight nodes, lines of 8 MB/s and 2 ms: one node at a time %.1f s, all nodes in parallel %.1f s", took["1"].Seconds(), took["8"].Seconds())

	t.Run("new token", func(t *testing.T) {
		f := f.For(t)
		f.rotate("clientmountd")
		sockets := map[string]string{}
		for _, n := range f.Nodes {
			sockets[n.Name] = n.Do("systemctl show -p ActiveEnterTimestampMonotonic nnf-dm.socket; stat -c '%i %Z' /etc/nnf-dm/service.token /usr/bin/clientmountd")
		}
		a := f.DeployJSON("install", older.PackageArguments()...)
		expect(t, a, 0, all(f.Nodes, "ok"))
		for _, n := range f.Nodes {
			healthy(t, f, n, older)
			if now := n.Do("systemctl show -p ActiveEnterTimestampMonotonic nnf-dm.socket; stat -c '%i %Z' /etc/nnf-dm/service.token /usr/bin/clientmountd"); now != sockets[n.Name] {
				t.Errorf("%s: unrelated files or units have changed: %q, before %q", n.Name, now, sockets[n.Name])
			}
			if changes := strings.Join(a.Nodes[n.Name].Changes, "\n"); contains(changes, "nnf-dm") || !contains(changes, "/etc/clientmountd/service.token") {
				t.Errorf("%s: the changes are %q", n.Name, changes)
			}
		}
		f.Nodes[slow].serves("rotated")
	})

	t.Run("uninstall", func(t *testing.T) {
		f := f.For(t)
		busy := f.Nodes[plain]
		busy.Do("mkdir -p /mnt/nnf/job && mount -t tmpfs tmpfs /mnt/nnf/job && echo data >/mnt/nnf/job/file")
		f.recordMount(busy, "/mnt/nnf/job")
		want := all(f.Nodes, "ok")
		want[busy.Name] = "failed"
		for node, mounts := range f.mounts() {
			if count := map[bool]string{true: "1", false: "0"}[node == busy.Name]; mounts != count {
				t.Errorf("%s has %s mounts, want %s", node, mounts, count)
			}
		}
		a := f.DeployJSON("uninstall", "--dry-run")
		if a.Code == 2 {
			t.Fatal(a.Stderr)
		}
		healthy(t, f, f.Nodes[slow], older)
		a = f.DeployJSON("uninstall")
		expect(t, a, 1, want)
		if o := a.Nodes[busy.Name]; !contains(o.Cause, "mount") || !contains(o.Hint, "--force") {
			t.Errorf("%+v", o)
		}
		healthy(t, f, busy, older)
		want = all(f.Nodes, "unchanged")
		want[busy.Name] = "ok"
		expect(t, f.DeployJSON("uninstall", "--force"), 0, want)
		busy.Do("[ $(cat /mnt/nnf/job/file) = data ] && umount /mnt/nnf/job")
		for _, n := range f.Nodes {
			if got := n.Release(); got != "none" {
				t.Errorf("%s has %s", n.Name, got)
			}
			if left := n.Do("systemctl list-unit-files --no-legend 'clientmountd*' 'nnf-*'; ls -d /var/lib/nnf-deploy /etc/clientmountd /etc/nnf-dm 2>/dev/null || :"); left != "" {
				t.Errorf("%s: left behind: %s", n.Name, left)
			}
		}
		if lines := difference(names(bare), names(busy.Files())); lines != "" {
			t.Errorf("the files differ from those before the installation:\n%s", lines)
		}
	})
}

// recordMount writes clientmountd's record of a mount that is in place on a node.
func (f *Fleet) recordMount(n *Node, path string) {
	f.t.Helper()
	out := strings.Fields(n.Do("awk '$5 == \"" + path + "\" { print $1, $3, $4 }' /proc/1/mountinfo"))
	if len(out) != 3 {
		f.t.Fatalf("%s is not mounted on %s: %q", path, n.Name, out)
	}
	id, err := strconv.Atoi(out[0])
	if err != nil {
		f.t.Fatal(err)
	}
	dir := f.t.TempDir()
	records, err := clientmount.OpenRecords(dir)
	if err == nil {
		err = records.Save(&clientmount.Record{
			Version: 1, UID: "job", Name: "job", Namespace: n.Name,
			Mounts: []clientmount.MountRecord{{
				Plan: plan.Plan{Path: path}, Ready: true,
				Mounted: &clientmount.Identity{ID: id, Device: out[1], Root: out[2], FSType: "tmpfs", Source: "tmpfs"},
			}},
		})
	}
	data, rerr := os.ReadFile(filepath.Join(clientmount.RecordsDirectory(dir), "job.json"))
	if err := errors.Join(err, rerr); err != nil {
		f.t.Fatal(err)
	}
	n.Put(filepath.Join(clientmount.RecordsDirectory("/run/clientmountd"), "job.json"), 0o600, data)
}

// mounts returns the number of mounts that status shows, by node.
func (f *Fleet) mounts() map[string]string {
	f.t.Helper()
	r := f.Deploy("status", "-o", "json")
	var s status
	if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil {
		f.t.Fatalf("%v: %+v", err, r)
	}
	found := map[string]string{}
	for _, n := range s.Nodes {
		for _, d := range n.Daemons {
			if d.Name == "clientmountd" && d.Mounts != nil {
				found[n.Node] = strconv.Itoa(*d.Mounts)
			}
		}
	}
	return found
}

// names returns the paths in a listing.
func names(listing string) string {
	var b strings.Builder
	for line := range strings.Lines(listing) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		b.WriteString(name + "\n")
	}
	return b.String()
}

// difference returns the lines that differ between two listings.
func difference(before, after string) (lines string) {
	set := func(text string) map[string]bool {
		set := map[string]bool{}
		for line := range strings.Lines(text) {
			set[strings.TrimSpace(line)] = true
		}
		return set
	}
	old, now := set(before), set(after)
	for line := range old {
		if !now[line] {
			lines += "- " + line + "\n"
		}
	}
	for line := range now {
		if !old[line] {
			lines += "+ " + line + "\n"
		}
	}
	return lines
}
