package target

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/payload"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// settled returns the report of a node that is in the wanted state, installed from packages.
func settled(w *Want) *Report {
	r := newReport()
	r.Arch, r.Systemd = "x86_64", "252"
	for i := range w.Daemons {
		d := &w.Daemons[i]
		files, _ := w.files(d)
		for _, f := range files {
			r.Files[f.path] = FileState{f.sum(), strings.TrimPrefix(f.mode, "0"), f.owner}
		}
		p := d.product()
		for _, path := range p.ConfigDirectories() {
			r.Files[path] = FileState{"directory", strings.TrimPrefix(p.DirectoryMode, "0"), p.Owner}
		}
		r.Files[product.Path(d.Bin)] = FileState{"x", "755", "root:root"}
		r.Packages[d.Bin] = Installed{d.Bin + "-1", "h1"}
		r.Owners[product.Path(d.Bin)] = d.Bin + "-1"
		r.Packaged[d.Bin] = true
	}
	r.Units["clientmountd.service"] = Unit{Load: "loaded", Active: "active", File: "enabled"}
	r.Units["nnf-dm.service"] = Unit{Load: "loaded", Active: "inactive", File: "indirect"}
	r.Units["nnf-dm.socket"] = Unit{Load: "loaded", Active: "active", File: "enabled"}
	r.Space[product.StateDirectory], r.Space[product.BinDirectory], r.Space[product.ConfigDirectory] = 1<<20, 1<<20, 1<<20
	return r
}

func pack(version string) payload.Payload {
	var p payload.Payload
	for _, name := range product.Names() {
		for _, arch := range []string{"x86_64", "aarch64"} {
			p.Packages = append(p.Packages, payload.Package{Name: name, NEVRA: name + "-" + version, Header: "h" + version, Arch: arch, File: payload.File{Size: 10 << 20}})
		}
	}
	return p
}

func TestDiff(t *testing.T) {
	clientmountd, _ := product.Of("clientmountd")
	nnfdm, _ := product.Of("nnf-dm")
	token, cert := product.Credentials("clientmountd")
	conf := clientmountd.Settings()
	for _, tt := range []struct {
		name   string
		want   func(*Want)
		report func(*Report)
		result string // changes, or "!" and an error
	}{
		{"no difference", nil, nil, ""},
		{"without programs", func(w *Want) { w.Payload = payload.Payload{} }, nil, ""},
		{"without programs, not installed", func(w *Want) { w.Payload = payload.Payload{} },
			func(r *Report) { r.Files["/usr/bin/clientmountd"] = FileState{State: "absent"} }, "!clientmountd is not installed on the node"},
		{"newer package", func(w *Want) {
			w.Payload = pack("2")
			w.Payload.Packages = append(w.Payload.Packages[:2], pack("1").Packages[2:]...)
		}, nil,
			"replace clientmountd-2 (is clientmountd-1)\nrestart clientmountd.service\n"},
		{"same version, rebuilt", func(w *Want) { w.Payload.Packages[0].Header = "other" }, nil,
			"replace clientmountd-1 (is clientmountd-1)\nrestart clientmountd.service\n"},
		{"older package with another name", nil, func(r *Report) {
			delete(r.Packages, "clientmountd")
			r.Owners["/usr/bin/clientmountd"] = "nnf-clientmount-1.0-1.x86_64"
		}, "replace clientmountd-1 (is nnf-clientmount-1.0-1.x86_64)\nrestart clientmountd.service\n"},
		{"force", func(w *Want) { w.Force = true; w.Daemons = w.Daemons[:1] }, nil,
			"replace clientmountd-1 (is clientmountd-1)\nreplace " + token + "\nreplace " + cert + "\nreplace " + conf + "\nrestart clientmountd.service\n"},
		{"different token", nil, func(r *Report) { f := r.Files[token]; f.State = "0000"; r.Files[token] = f }, "replace " + token + "\nrestart clientmountd.service\n"},
		{"token readable by others", nil, func(r *Report) { f := r.Files[token]; f.Mode = "644"; r.Files[token] = f }, "permissions " + token + "\n"},
		{"token owned by a user", nil, func(r *Report) { f := r.Files[token]; f.Owner = "user:user"; r.Files[token] = f }, "permissions " + token + "\n"},
		{"directory readable by others", nil, func(r *Report) { r.Files["/etc/nnf-dm"] = FileState{"directory", "755", "root:root"} }, "permissions /etc/nnf-dm\n"},
		{"directory missing", nil, func(r *Report) { r.Files["/etc/nnf-dm"] = FileState{State: "absent"} }, ""},
		{"token is a link", nil, func(r *Report) { r.Files[token] = FileState{State: "link"} }, "replace " + token + "\nrestart clientmountd.service\n"},
		{"token missing", nil, func(r *Report) { r.Files[token] = FileState{State: "absent"} }, "write " + token + "\nrestart clientmountd.service\n"},
		{"new address of the API server", func(w *Want) { w.Host = "fd00::1"; w.Daemons = w.Daemons[:1] }, nil, "replace " + conf + "\nrestart clientmountd.service\n"},
		{"arguments", func(w *Want) { w.Daemons[1].Arguments = []string{"--x"} }, nil, "write " + nnfdm.DropIn() + "\n"},
		{"arguments removed", nil, func(r *Report) { r.Contents[clientmountd.DropIn()] = "[Service]\n" }, "remove " + clientmountd.DropIn() + "\nrestart clientmountd.service\n"},
		{"disabled", nil, func(r *Report) { r.Units["nnf-dm.socket"] = Unit{Load: "loaded", Active: "active", File: "disabled"} }, "enable nnf-dm.socket\n"},
		{"stopped", nil, func(r *Report) {
			r.Units["clientmountd.service"] = Unit{Load: "loaded", Active: "inactive", File: "enabled"}
			r.Units["nnf-dm.socket"] = Unit{Load: "loaded", Active: "inactive", File: "enabled"}
		}, "start clientmountd.service\nstart nnf-dm.socket\n"},
		{"still starting", nil, func(r *Report) {
			r.Units["clientmountd.service"] = Unit{Load: "loaded", Active: "activating", File: "enabled"}
		}, "restart clientmountd.service\n"},
		{"failed", nil, func(r *Report) { r.Units["nnf-dm.service"] = Unit{Load: "loaded", Active: "failed"} }, "start nnf-dm.service\n"},
		{"pending restart", nil, func(r *Report) { r.Interrupted, r.Pending = true, []string{"clientmountd", "nnf-dm"} }, "start nnf-dm.service\nrestart clientmountd.service\n"},
		{"masked", nil, func(r *Report) { r.Units["nnf-dm.socket"] = Unit{Load: "masked"} }, "!nnf-dm.socket is masked on the node"},
		{"no systemd", nil, func(r *Report) { r.Systemd = "" }, "!systemd does not run on the node"},
		{"busy", nil, func(r *Report) { r.Busy = true }, "!another nnf-deploy is changing this node"},
		{"other architecture", nil, func(r *Report) { r.Arch = "ppc64le" }, "!the given clientmountd is for x86_64, aarch64, but the node is ppc64le"},
		{"full file system", func(w *Want) { w.Payload = pack("2") }, func(r *Report) { r.Space["/var/lib/nnf-deploy"] = 20 << 10 },
			"!the file system of /var/lib/nnf-deploy is full: 20.0 MiB free, 21.0 MiB needed"},
		{"full file system, no difference", nil, func(r *Report) { clear(r.Space); r.Space["/etc"] = 0 }, ""},
		{"/etc is full", func(w *Want) { w.Port = "1" }, func(r *Report) { r.Space["/etc"] = 0 }, "!the file system of /etc is full: 0.0 MiB free, 1.0 MiB needed"},
		{"programs instead of a package", func(w *Want) {
			w.Payload = payload.Payload{Programs: []payload.Program{{Name: "clientmountd", Arch: "x86_64"}, {Name: "nnf-dm", Arch: "x86_64"}}}
		}, nil, "!/usr/bin/clientmountd belongs to the package clientmountd-1 on the node"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := wanted(pack("1"))
			r := settled(w)
			if tt.want != nil {
				tt.want(w)
			}
			if tt.report != nil {
				tt.report(r)
			}
			before := maps.Clone(r.Files)
			p, err := Diff(w, r)
			got := ""
			if err != nil {
				got = "!" + err.Error()
			} else {
				got = changes(p)
			}
			if got != tt.result {
				t.Errorf("have:\n%s\nwant:\n%s", got, tt.result)
			}
			if !maps.Equal(before, r.Files) {
				t.Error("Diff has changed the report")
			}
		})
	}
}

// If the package manager was killed and two versions are installed, the plan shows both, and
// installs the wanted one again.
func TestTwoVersionsInstalled(t *testing.T) {
	r, err := parseReport(strings.NewReader("nnf-deploy\tprobe\t1\npackage\tclientmountd\tclientmountd-0\th0\npackage\tclientmountd\tclientmountd-1\th1\nend\n"))
	if err != nil {
		t.Fatal(err)
	}
	w := wanted(pack("1"))
	full := settled(w)
	full.Packages["clientmountd"] = r.Packages["clientmountd"]
	p, err := Diff(w, full)
	if err != nil || changes(p) != "replace clientmountd-1 (is clientmountd-0, clientmountd-1)\nrestart clientmountd.service\n" {
		t.Errorf("%v %s", err, changes(p))
	}
}

// Only changed files are sent.
func TestBytes(t *testing.T) {
	w := wanted(pack("2"))
	p, err := Diff(w, settled(wanted(pack("1"))))
	if err != nil || p.Bytes() != 20<<20 {
		t.Errorf("%d %v", p.Bytes(), err)
	}
	w = wanted(pack("1"))
	w.Daemons[0].Token = []byte("12345")
	if p, err = Diff(w, settled(wanted(pack("1")))); err != nil || p.Bytes() != 5 {
		t.Errorf("%d %v", p.Bytes(), err)
	}
}

// Only root can read a drop-in with the environment of daemons.yaml, which may contain secrets.
func TestDropInMode(t *testing.T) {
	for _, tt := range []struct {
		d    Daemon
		want string
	}{
		{Daemon{Name: "nnf-dm", Bin: "nnf-dm", Environment: []Variable{{"HTTPS_PROXY", "http://user:secret@proxy"}}}, "0600"},
		{Daemon{Name: "nnf-dm", Bin: "nnf-dm", Arguments: []string{"--x"}, Environment: []Variable{{"A", "b"}}}, "0600"},
		{Daemon{Name: "nnf-dm", Bin: "nnf-dm", Arguments: []string{"--x"}}, "0644"},
	} {
		list, err := (&Want{Node: "n", Host: "h", Port: "1"}).files(&tt.d)
		i := slices.IndexFunc(list, func(f file) bool { return f.path == tt.d.product().DropIn() })
		if err != nil || i < 0 || list[i].mode != tt.want {
			t.Errorf("%+v: %+v %v", tt.d, list, err)
		}
	}
}
