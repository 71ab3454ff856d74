package clientmount

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// The device number decides, not the source.
func TestMatchesVolume(t *testing.T) {
	dm := node.Mount{ID: 5, Mountpoint: testPath, FSType: "xfs", Source: testDevice, Root: "/", Major: 253, Minor: 7}
	with := func(change func(m *node.Mount)) node.Mount { m := dm; change(&m); return m }
	raw := node.Mount{ID: 5, Mountpoint: testPath, FSType: "devtmpfs", Source: "devtmpfs", Root: "/dm-7", Minor: 5}
	lustre := node.Mount{ID: 5, Mountpoint: testPath, FSType: "lustre", Source: "10.1.1.2@tcp0:/job7fs", Root: "/"}
	for name, c := range map[string]struct {
		typ    string
		m      node.Mount
		active bool // the device node exists
		noted  bool // the record has this mount
		want   bool
	}{
		"our device":                        {"xfs", dm, true, false, true},
		"only the source matches":           {"xfs", with(func(m *node.Mount) { m.Major = 8 }), true, false, false},
		"source differs, same device":       {"xfs", with(func(m *node.Mount) { m.Source = "/dev/dm-7" }), true, false, true},
		"another type":                      {"xfs", with(func(m *node.Mount) { m.FSType = "ext4" }), true, false, false},
		"no node, device-mapper name":       {"xfs", dm, false, false, true},
		"no node, another device":           {"xfs", with(func(m *node.Mount) { m.Major = 8 }), false, false, false},
		"no node, recorded":                 {"xfs", with(func(m *node.Mount) { m.Major = 7 }), false, true, true},
		"recorded, another node":            {"xfs", with(func(m *node.Mount) { m.Major = 7 }), true, true, false},
		"raw":                               {"none", raw, true, false, true},
		"raw, another device":               {"none", func() node.Mount { m := raw; m.Root = "/sda"; return m }(), true, false, false},
		"raw, hidden node, recorded":        {"none", func() node.Mount { m := raw; m.Root = "/gone"; return m }(), false, true, true},
		"raw, removed node, recorded":       {"none", func() node.Mount { m := raw; m.Root = "/dm-7//deleted"; return m }(), true, true, false},
		"raw, a file system is mounted":     {"none", dm, true, false, false},
		"lustre, NID spelled differently":   {"lustre", lustre, true, false, true},
		"lustre, another file system":       {"lustre", func() node.Mount { m := lustre; m.Source = "10.1.1.2@tcp:/other"; return m }(), true, false, false},
		"lustre, recorded, new source":      {"lustre", func() node.Mount { m := lustre; m.Source = "192.0.2.9@tcp:/job7fs"; return m }(), true, true, true},
		"lustre expected, something local":  {"lustre", dm, true, false, false},
		"xfs expected, lustre of same name": {"xfs", lustre, true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := plan.ForMount(testObject(c.typ), 0, testProfile(), plan.Options{})
			if err != nil {
				t.Fatal(err)
			}
			f := newFakeMachine()
			f.lvs[testVG+"/"+testLV] = c.active
			var rec *MountRecord
			if c.noted {
				rec = &MountRecord{Mounted: identityOf(c.m)}
			}
			if got, err := matchesVolume(f, c.m, p, rec); got != c.want || err != nil {
				t.Errorf("matchesVolume = %v, %v", got, err)
			}
		})
	}
}

// The kernel reuses mount IDs and anonymous device numbers immediately.
func TestIdentity(t *testing.T) {
	lustre := node.Mount{ID: 5, FSType: "lustre", Source: "10.1.1.2@tcp:/job7fs", Root: "/", Minor: 77}
	disk := node.Mount{ID: 5, FSType: "xfs", Source: "/dev/mapper/a", Root: "/", Major: 253, Minor: 7}
	raw := node.Mount{ID: 5, FSType: "devtmpfs", Source: "devtmpfs", Root: "/dm-7", Minor: 5}
	for name, c := range map[string]struct {
		m      node.Mount
		change func(m *node.Mount)
		want   bool
	}{
		"same":                     {lustre, func(*node.Mount) {}, true},
		"reused by another server": {lustre, func(m *node.Mount) { m.Source = "10.9.9.9@tcp:/other" }, false},
		"device renamed":           {disk, func(m *node.Mount) { m.Source = "/dev/dm-7" }, true},
		"mount id reused":          {disk, func(m *node.Mount) { m.Minor = 8 }, false},
		"another mount":            {disk, func(m *node.Mount) { m.ID = 6 }, false},
		"a directory of it":        {disk, func(m *node.Mount) { m.Root = "/sub" }, false},
		"another type":             {disk, func(m *node.Mount) { m.FSType = "ext4" }, false},
		"its node was removed":     {raw, func(m *node.Mount) { m.Root += "//deleted" }, true},
		"another node":             {raw, func(m *node.Mount) { m.Root = "/dm-8//deleted" }, false},
	} {
		id, now := identityOf(c.m), c.m
		if c.change(&now); id.is(now) != c.want {
			t.Errorf("%s: %t", name, !c.want)
		}
	}
	if (*Identity)(nil).is(disk) {
		t.Error("a nil identity matches a mount")
	}
}

// A bind mount whose device node was removed stays ours: it is unmounted, or replaced before the next
// job uses it.
func TestRemovedDevice(t *testing.T) {
	for _, state := range []dws.State{dws.Unmounted, dws.Mounted} {
		t.Run(string(state), func(t *testing.T) {
			f := newMounted(t, dws.TypeRaw)
			f.machine.table[0].Root += "//deleted"
			f.machine.lvs[testVG+"/"+testLV] = false
			old := f.machine.table[0].ID
			f.restart(f.rec.records)
			f.machine.done()
			f.want(state)
			f.reconcile()
			st, table := f.server.object().Status, f.machine.table
			if !st.AllReady || st.Mounts[0].State != state || (len(table) == 1) != (state == dws.Mounted) {
				t.Fatalf("status %s, table %v", describe(&st), table)
			}
			if state == dws.Mounted && (table[0].ID == old || table[0].Removed()) {
				t.Errorf("the old mount is used: %v; %q", table, f.machine.done())
			}
		})
	}
}

// A daemon that starts while another mount hides its own does not mount a second time.
func TestMountHidden(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.machine.table = append(f.machine.table, node.Mount{ID: 7, Mountpoint: "/mnt", FSType: "tmpfs", Source: "tmpfs", Root: "/"})
	f.restart(f.rec.records)
	f.machine.done()
	f.reconcile()
	st := f.server.object().Status
	if len(f.machine.table) != 2 || st.Mounts[0].Ready || st.Error == nil || !strings.Contains(st.Error.DebugMessage, "is hidden by device tmpfs type tmpfs at /mnt") {
		t.Fatalf("status %s, table %v, %q", describe(&st), f.machine.table, f.machine.done())
	}
	f.machine.table = f.machine.table[:1]
	if f.reconcile(); !f.server.object().Status.AllReady || len(f.machine.table) != 1 {
		t.Errorf("table %v", f.machine.table)
	}
}

// A mount of an earlier daemon is recognised even if the kernel shows an address in place
// of the host name in the object.
func TestMatchesVolumeByHostName(t *testing.T) {
	cm := testObject(dws.TypeLustre)
	cm.Spec.Mounts[0].Device.Lustre.MGSAddresses = "mgs.example.org@tcp"
	p, err := plan.ForMount(cm, 0, testProfile(), plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]bool{"192.0.2.1@tcp:/job7fs": true, "192.0.2.2@tcp:/job7fs": false, "192.0.2.1@tcp:/other": false} {
		m := node.Mount{Mountpoint: testPath, FSType: "lustre", Source: source, Root: "/"}
		if got, err := matchesVolume(newFakeMachine(), m, p, nil); got != want || err != nil {
			t.Errorf("%s: %t %v", source, got, err)
		}
	}
}

func TestForeignText(t *testing.T) {
	p, err := plan.ForMount(testObject(dws.TypeXFS), 0, testProfile(), plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	text := errForeign(node.Mount{Source: "/dev/sda1", FSType: "ext4", Major: 8, Minor: 1}, p).Error()
	if !strings.HasPrefix(text, "unexpected mount at path "+testPath+". Device /dev/sda1") || !strings.Contains(text, "type ext4") {
		t.Error(text)
	}
}

// The directories for the target are saved in the record before they are created, so a
// crash leaves none that is not recorded.
func TestTargetIsRecordedFirst(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.machine.missing = []string{"/mnt/nnf", testPath}
	var onDisk []string
	f.machine.making = func() {
		rec, err := f.rec.records.Load("aaaa-1")
		if err != nil {
			t.Fatal(err)
		}
		onDisk = rec.Mounts[0].Created
	}
	f.reconcile()
	f.expect("in the record before the target is created", onDisk, []string{"/mnt/nnf", testPath})
	// The fake created only the last one, as if another process had created the others.
	f.expect("in the record after the mount", f.work.record.Mounts[0].Created, []string{testPath})
}

func TestTargetRecordThatCannotBeSaved(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.machine.missing = []string{testPath}
	made := false
	f.machine.making = func() { made = true }
	r := f.task("aaaa-1").newRunner(&plan.Plan{Path: testPath}, &MountRecord{}, func() error { return errors.New("disk full") }, func(_, _, _ string, _ time.Time, _ error) {})
	if err := r.makeTarget("x"); err == nil || made {
		t.Errorf("%v, made %t", err, made)
	}
}

func TestUnion(t *testing.T) {
	a := []string{"/a", "/a/b"}
	if got := union(a, []string{"/a/b", "/a/b/c"}); !slices.Equal(got, []string{"/a", "/a/b", "/a/b/c"}) || len(a) != 2 {
		t.Errorf("%q", got)
	}
}

func testServers(t *testing.T, text string) *dws.Servers {
	s := new(dws.Servers)
	if err := json.Unmarshal([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	return s
}

const twoRabbits = `{"spec":{"allocationSets":[
 {"label":"ost","storage":[{"name":"rabbit-01","allocationCount":2},{"name":"rabbit-02","allocationCount":1}]},
 {"label":"mgtmdt","storage":[{"name":"rabbit-01","allocationCount":1}]}]}}`

func TestServersText(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"empty":       {`{"spec":{}}`, `{"mdt":[],"mgt":[],"mgtmdt":[],"nnfNode":[],"ost":[]}`},
		"two rabbits": {twoRabbits, `{"mdt":[],"mgt":[],"mgtmdt":["rabbit-01"],"nnfNode":["rabbit-01","rabbit-02"],"ost":["rabbit-01","rabbit-01","rabbit-02"]}`},
		"other label": {`{"spec":{"allocationSets":[{"label":"zzz","storage":[{"name":"r","allocationCount":1}]}]}}`,
			`{"mdt":[],"mgt":[],"mgtmdt":[],"nnfNode":["r"],"ost":[],"zzz":["r"]}`},
		"negative count": {`{"spec":{"allocationSets":[{"label":"ost","storage":[{"name":"r","allocationCount":-1}]}]}}`,
			`{"mdt":[],"mgt":[],"mgtmdt":[],"nnfNode":["r"],"ost":[]}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := serversText(testServers(t, c.in))
			if err != nil || string(got) != c.want+"\n" {
				t.Errorf("%s %v\nwant %s", got, err, c.want)
			}
		})
	}
	if _, err := serversText(testServers(t, `{"spec":{"allocationSets":[{"label":"ost","storage":[{"name":"r","allocationCount":2000000000}]}]}}`)); err == nil {
		t.Error("two billion entries were accepted")
	}
}

func TestServersFile(t *testing.T) {
	storage := &nnf.StorageOwner{}
	storage.Name = "job7-0"
	storage.Labels = map[string]string{api.LabelOwnerKind: "Workflow", api.LabelWorkflowName: "job7", api.LabelWorkflowNamespace: "default"}
	instance := &nnf.StorageOwner{}
	instance.Labels = map[string]string{api.LabelOwnerKind: "PersistentStorageInstance", api.LabelOwnerName: "psi", api.LabelOwnerNamespace: "default"}
	for name, c := range map[string]struct {
		owner    string
		storage  *nnf.StorageOwner
		servers  int
		selector string
		written  bool
	}{
		"workflow":            {"NnfStorage", storage, 1, api.LabelWorkflowName + "=job7," + api.LabelWorkflowNamespace + "=default," + api.LabelDirectiveIndex + "=0", true},
		"persistent instance": {"NnfStorage", instance, 1, api.LabelOwnerKind + "=PersistentStorageInstance," + api.LabelOwnerName + "=psi," + api.LabelOwnerNamespace + "=default", true},
		"owned by an access":  {"NnfAccess", storage, 1, "", false},
		"no storage":          {"NnfStorage", nil, 1, "", false},
		"two objects":         {"NnfStorage", storage, 2, "*", false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, dws.TypeLustre)
			f.rec.plan.ServersFile = true
			f.server.cm.Labels[api.LabelOwnerKind], f.server.cm.Labels[api.LabelDirectiveIndex] = c.owner, "0"
			f.server.storage = c.storage
			for range c.servers {
				f.server.servers = append(f.server.servers, testServers(t, twoRabbits))
			}
			if res := f.reconcile(); res.failed {
				t.Fatalf("the file must never fail the mount: %+v", res)
			}
			ran := strings.Join(f.machine.done(), "\n")
			if got := strings.Contains(ran, "write "+testPath+"/.nnf-servers.json"); got != c.written {
				t.Errorf("written: %v\n%s", got, ran)
			}
			if c.selector != "*" && f.server.selector != c.selector {
				t.Errorf("selector %q, want %q", f.server.selector, c.selector)
			}
		})
	}
	// Servers are read in the version of ClientMounts, or in another one if that has no Servers.
	t.Run("version", func(t *testing.T) {
		newest, older := api.VersionsDWS[0], api.VersionsDWS[1]
		for _, tt := range []struct {
			mounts, without string
			want            []string
		}{
			{newest, "", []string{newest}},
			{older, "", []string{older}},
			{newest, newest, []string{newest, older}},
			{older, older, []string{older, newest}},
		} {
			f := newFixture(t, dws.TypeLustre)
			f.rec.plan.ServersFile = true
			f.rec.remote.mounts = func() kube.Resource { return Resource(tt.mounts) }
			f.server.cm.Labels[api.LabelOwnerKind], f.server.cm.Labels[api.LabelDirectiveIndex] = "NnfStorage", "0"
			f.server.storage, f.server.servers = storage, []*dws.Servers{testServers(t, twoRabbits)}
			f.server.without = tt.without
			if res := f.reconcile(); res.failed {
				t.Fatalf("%+v: %+v", tt, res)
			}
			if !slices.Equal(f.server.versions, tt.want) || !strings.Contains(strings.Join(f.machine.done(), "\n"), "write ") {
				t.Errorf("%+v: requested in %q", tt, f.server.versions)
			}
		}
	})
	// The plan determines whether the file is written.
	t.Run("only if the plan has the step", func(t *testing.T) {
		for _, wanted := range []bool{true, false} {
			f := newFixture(t, dws.TypeLustre)
			f.rec.plan.ServersFile = wanted
			f.server.cm.Labels[api.LabelOwnerKind], f.server.cm.Labels[api.LabelDirectiveIndex] = "NnfStorage", "0"
			m := &f.server.cm.Spec.Mounts[0]
			m.SetPermissions, m.UserID, m.GroupID = !wanted, 1001, 1002 // SetPermissions determines only the chown step
			f.server.storage, f.server.servers = storage, []*dws.Servers{testServers(t, twoRabbits)}
			if res := f.reconcile(); res.failed {
				t.Fatalf("wanted %v: %+v", wanted, res)
			}
			step := f.work.record.Mounts[0].Plan.MountStep(plan.ServersFile)
			ran := strings.Join(f.machine.done(), "\n")
			if written := strings.Contains(ran, "write "); (step != nil) != wanted || written != wanted {
				t.Errorf("wanted %v: step %+v, written %v\n%s", wanted, step, written, ran)
			}
			if wanted && !strings.Contains(ran, "1001:1002") {
				t.Errorf("the owner of the file is not that of the entry\n%s", ran)
			}
		}
	})
	t.Run("a failure does not fail the mount", func(t *testing.T) {
		f := newFixture(t, dws.TypeLustre)
		f.rec.plan.ServersFile = true
		f.server.cm.Labels[api.LabelOwnerKind], f.server.cm.Labels[api.LabelDirectiveIndex] = "NnfStorage", "0"
		f.server.storage, f.server.servers = storage, []*dws.Servers{testServers(t, twoRabbits)}
		f.machine.fail["write"] = errors.New("read-only file system")
		if res := f.reconcile(); res.failed || !f.server.object().Status.AllReady {
			t.Errorf("%+v", res)
		}
	})
}

// A foreign mount at our path is neither used nor unmounted.
func TestForeignMount(t *testing.T) {
	for _, typ := range []string{dws.TypeXFS, dws.TypeRaw, dws.TypeLustre} {
		t.Run(typ, func(t *testing.T) {
			f := newFixture(t, typ)
			f.machine.table = []node.Mount{{ID: 7, Mountpoint: testPath, FSType: typ, Source: testDevice, Major: 8, Minor: 1, Root: "/other"}}
			f.reconcile()
			st := f.server.object().Status
			if st.Error == nil || !strings.Contains(st.Error.DebugMessage, "unexpected mount at path "+testPath) {
				t.Fatalf("status %s", describe(&st))
			}
			f.want(dws.Unmounted)
			f.reconcile()
			if !f.machine.mounted(testPath) {
				t.Fatal("the foreign mount was unmounted")
			}
			for _, line := range f.machine.done() {
				if strings.HasPrefix(line, "umount") || strings.HasPrefix(line, "mount") {
					t.Errorf("ran %q", line)
				}
			}
		})
	}
}

// A mount of our own command is ours, whatever source the kernel shows, even if the daemon
// is killed before it can record the mount.
func TestOtherSource(t *testing.T) {
	for name, noted := range map[string]bool{"noted": true, "not noted": false} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, dws.TypeLustre)
			f.server.cm.Spec.Mounts[0].Device.Lustre.MGSAddresses = "mgs.example.org@tcp"
			f.machine.shows = "192.0.2.1@tcp:/job7fs"
			if res := f.reconcile(); res.failed {
				t.Fatal(describe(&f.server.object().Status))
			}
			if !noted {
				rec := f.work.record.clone()
				rec.Mounts[0].Mounted, rec.Mounts[0].Mounting = nil, true
				if err := f.rec.records.Save(rec); err != nil {
					t.Fatal(err)
				}
			}
			f.restart(f.rec.records)
			f.machine.done()
			if res := f.reconcile(); res.failed {
				t.Fatal(describe(&f.server.object().Status))
			}
			f.expect("effects after the restart", effects(f.machine.done()), nil)
			f.delete()
			if res := f.reconcile(); !res.finished || f.machine.mounted(testPath) {
				t.Errorf("%+v", res)
			}
		})
	}
}
