package product

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
	"github.com/compute-daemons/compute-daemons/packaging"
)

const root = "../../../"

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(root + file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// has reports whether a text has this line, with any number of spaces between words.
func has(text, line string) bool {
	for l := range strings.Lines(text) {
		if slices.Equal(strings.Fields(l), strings.Fields(line)) {
			return true
		}
	}
	return false
}

// The guide lists exactly the rights that the daemons use.
func TestPermissionsInGuide(t *testing.T) {
	var want, got []string
	for _, d := range Daemons {
		for _, r := range d.Rules {
			if r.Used != "" {
				want = append(want, fmt.Sprintf("| `%s` | `%s` | `%s` | %s |\n", d.Account.Name, r.Group, r.Resource, strings.Join(strings.Fields(r.Used), ", ")))
			}
		}
	}
	_, section, _ := strings.Cut(read(t, "docs/credentials.md"), "\n## Permissions of the accounts\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "| `") {
			got = append(got, line)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the guide has %q, want %q", got, want)
	}
}

// The table lists exactly the units in the source tree.
func TestUnits(t *testing.T) {
	var want, got []string
	for _, d := range Daemons {
		want = append(want, d.Units()...)
		if timer := d.Timer(); timer != "" {
			want = append(want, timer)
			if d.TimerText != read(t, "systemd/system/"+timer) || !has(d.TimerText, "[Install]") || !has(d.TimerText, "WantedBy="+path.Base(strings.TrimSuffix(path.Dir(d.TimerLink()), ".wants"))) {
				t.Errorf("the text of %s is %s", timer, d.TimerText)
			}
			if !has(read(t, "systemd/system-preset/80-"+d.Name+".preset"), "disable "+timer) {
				t.Errorf("the preset of %s does not disable %s", d.Name, timer)
			}
		}
		service := read(t, "systemd/system/"+d.Service())
		if !has(service, "ExecStart="+Path(d.Name)) {
			t.Errorf("%s does not start %s", d.Service(), Path(d.Name))
		}
		_, group, _ := strings.Cut(d.Owner, ":")
		if (d.User == "root") == has(service, "User="+d.Name) || group != d.User {
			t.Errorf("%s does not run as a user of the group %s of its credentials", d.Service(), group)
		}
		if !has(read(t, "systemd/system-preset/80-"+d.Name+".preset"), "enable "+d.Enabled()) {
			t.Errorf("the preset of %s does not enable %s", d.Name, d.Enabled())
		}
		if !has(read(t, "systemd/system/"+d.Enabled()), "[Install]") {
			t.Errorf("%s cannot be enabled", d.Enabled())
		}
	}
	paths, err := filepath.Glob(root + "systemd/system/*.*")
	for _, p := range paths {
		if base := path.Base(p); !strings.HasSuffix(base, ".d") {
			got = append(got, base)
		}
	}
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("the table has %q, the tree %q (%v)", want, got, err)
	}
}

// The packages contain the programs, units and directories of the table, with the same owners
// and modes, and tmpfiles.d has the same directories.
func TestPackages(t *testing.T) {
	list, err := packaging.Packages(root + "nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range Daemons {
		i := slices.IndexFunc(list, func(p packaging.Package) bool { return p.Name == d.Name })
		if i < 0 {
			t.Errorf("there is no package %s", d.Name)
			continue
		}
		var programs []string
		got := map[string]string{} // mode and owner by path
		for _, c := range list[i].Contents {
			got[c.Destination] = fmt.Sprintf("%04o %s:%s", c.FileInfo.Mode.Perm(), c.FileInfo.Owner, c.FileInfo.Group)
			if path.Dir(c.Destination) == BinDirectory {
				programs = append(programs, path.Base(c.Destination))
			}
		}
		if !slices.Equal(programs, d.Programs()) {
			t.Errorf("the package %s has the programs %q, the table %q", d.Name, programs, d.Programs())
		}
		want := map[string]string{"/usr/share/doc/" + d.Name + "/manifests/" + d.Manifest: "0644 root:root"}
		for _, unit := range slices.DeleteFunc(append(d.Units(), d.Timer()), func(u string) bool { return u == "" }) {
			want[PackageDirectory+"/"+unit] = "0644 root:root"
		}
		want[d.RenewalDirectory()], want[d.StoredToken()] = RenewalMode+" "+d.RenewalOwner(), "0600 "+d.RenewalOwner()
		tmpfiles := read(t, "systemd/tmpfiles.d/"+d.Name+".conf")
		owner := strings.Replace(d.Owner, ":", " ", 1)
		for _, dir := range d.ConfigDirectories() {
			want[dir] = d.DirectoryMode + " " + d.Owner
			if !has(tmpfiles, "d "+dir+" "+d.DirectoryMode+" "+owner+" -") {
				t.Errorf("tmpfiles.d does not create %s with mode %s and owner %s", dir, d.DirectoryMode, d.Owner)
			}
		}
		if !has(tmpfiles, "d "+d.RenewalDirectory()+" "+RenewalMode+" "+strings.Replace(d.RenewalOwner(), ":", " ", 1)+" -") {
			t.Errorf("tmpfiles.d does not create %s with mode %s and owner %s", d.RenewalDirectory(), RenewalMode, d.RenewalOwner())
		}
		for p, w := range want {
			if got[p] != w {
				t.Errorf("the package %s has %s as %q, the table as %q", d.Name, p, got[p], w)
			}
		}
		token, _ := Credentials(d.Name)
		if !has(tmpfiles, "z "+token+" "+d.SecretMode+" "+owner+" -") {
			t.Errorf("tmpfiles.d does not give %s mode %s and owner %s", token, d.SecretMode, d.Owner)
		}
	}
}

// The daemons have the settings that nnf-deploy writes, and read the file that it writes.
func TestSettings(t *testing.T) {
	tables := map[string]*config.Table{
		"clientmountd": new(clientmount.Configuration).Table(),
		"nnf-dm":       new(server.Configuration).Table(),
	}
	for _, d := range Daemons {
		table := tables[d.Name]
		for _, key := range []string{KeyHost, KeyPort, KeyToken, KeyCert, KeyNode} {
			if !slices.ContainsFunc(table.Settings, func(s config.Setting) bool { return s.Key == key }) {
				t.Errorf("%s has no setting %s", d.Name, key)
			}
		}
		i := slices.IndexFunc(table.Settings, func(s config.Setting) bool { return s.Key == "daemon.state_directory" })
		if i < 0 || table.Settings[i].Default != d.RenewalDirectory() {
			t.Errorf("the default state directory of %s is not %s", d.Name, d.RenewalDirectory())
		}
		if d.User != "root" && !has(read(t, "systemd/system/"+d.Service()), "ReadWritePaths=-"+d.RenewalDirectory()) {
			t.Errorf("the sandbox of %s does not permit writing to %s", d.Name, d.RenewalDirectory())
		}
		if path.Dir(table.File) != Directory(d.Name) || path.Dir(d.Settings()) != path.Dir(table.File)+"/config.d" {
			t.Errorf("%s reads %s and config.d beside it, the table has %s", d.Name, table.File, d.Settings())
		}
	}
}

// nnf-deploy looks for the files that the daemons store.
func TestStoredFiles(t *testing.T) {
	var want []string
	for _, name := range []string{kube.StoredToken, daemon.TokenRecordName} {
		want = append(want, name, name+safepath.TemporarySuffix)
	}
	if !slices.Equal(StoredFiles, want) || TokenFile != kube.StoredToken {
		t.Errorf("the table has %q and %s, the daemons store %q", StoredFiles, TokenFile, want)
	}
}

// Account, Secret and role are the same as in the manifest, and so as in a Near-Node Flash
// installation.
func TestManifests(t *testing.T) {
	for _, d := range Daemons {
		var granted, want []string
		seen := map[string]string{}
		for document := range bytes.SplitSeq([]byte(read(t, "packaging/manifests/"+d.Manifest)), []byte("\n---\n")) {
			var o struct {
				Kind     string
				Metadata struct{ Name, Namespace string }
				Rules    []struct{ APIGroups, Resources, Verbs []string }
			}
			if err := yaml.Unmarshal(document, &o); err != nil {
				t.Fatal(err)
			}
			seen[o.Kind] = o.Metadata.Namespace + "/" + o.Metadata.Name
			for _, r := range o.Rules {
				for _, group := range r.APIGroups {
					for _, resource := range r.Resources {
						for _, verb := range r.Verbs {
							granted = append(granted, verb+" "+resource+"."+group)
						}
					}
				}
			}
		}
		for _, r := range d.Rules {
			for verb := range strings.FieldsSeq(r.Used + " " + r.Other) {
				want = append(want, verb+" "+r.Resource+"."+r.Group)
			}
		}
		slices.Sort(granted)
		slices.Sort(want)
		if !slices.Equal(granted, want) || len(want) == 0 {
			t.Errorf("%s: the table has\n%s\nthe manifest\n%s", d.Name, strings.Join(want, "\n"), strings.Join(granted, "\n"))
		}
		if seen["Secret"] != d.Account.String() || seen["ServiceAccount"] != d.Account.String() {
			t.Errorf("%s: the account %s is not that of the manifest, %v", d.Name, d.Account, seen)
		}
	}
}

// No right of older versions is listed as used: nnf-deploy would refuse accounts without it.
func TestOlderVerbsAreNotUsed(t *testing.T) {
	for _, d := range Daemons {
		for _, r := range d.Rules {
			_, sub, _ := strings.Cut(r.Resource, "/")
			for verb := range strings.FieldsSeq(r.Used) {
				if verb == "update" || sub == "finalizers" || d.SocketActivated && sub == "status" || r.Resource == "nnfstorageprofiles" && verb != "get" {
					t.Errorf("%s is listed as using %s of %s", d.Name, verb, r.Resource)
				}
			}
		}
	}
}

func TestOf(t *testing.T) {
	for program, known := range map[string]bool{"clientmountd": true, "nnf-dm": true, "": true, "nnf-dmctl": false, "rm": false} {
		d, got := Of(program)
		if got != known || d.Owner == "" || d.DirectoryMode == "" || d.SecretMode == "" {
			t.Errorf("%q: %v %+v", program, got, d)
		}
	}
	if got := (Account{"a", "n"}).User(); got != "system:serviceaccount:n:a" {
		t.Error(got)
	}
}
