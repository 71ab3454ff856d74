package plan

import (
	"encoding/json"
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// FuzzForMount checks that any input from the API server gives a plan that is safe to run
// as root, or an error that can be written to a status, but never a panic.
func FuzzForMount(f *testing.F) {
	for _, c := range goldenCases {
		cm, profile, o := clientMount(c.typ), template(), Options{}
		if c.change != nil {
			c.change(cm, profile, &o)
		}
		object, err := json.Marshal(cm)
		if err != nil {
			f.Fatal(err)
		}
		text, err := json.Marshal(profile)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(object, text)
	}
	f.Add([]byte(`{"spec":{"mounts":[{"type":"xfs","device":{"type":"lvm"}}]}}`), []byte(`{}`))
	f.Add([]byte(`{"spec":{"mounts":[{"type":"lustre","device":{"type":"lustre","deviceReference":{"data":-9}}}]}}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, object, text []byte) {
		var cm dws.ClientMount
		var profile nnf.StorageProfile
		if json.Unmarshal(object, &cm) != nil || json.Unmarshal(text, &profile) != nil {
			return
		}
		_ = CheckObject(&cm, "compute-01")
		_, _, _ = ProfileRef(&cm)
		_ = CheckProfile(&profile)
		for i := range cm.Spec.Mounts {
			p, err := ForMount(&cm, i, &profile, Options{})
			if err != nil {
				re := (*dws.ResourceError)(nil)
				if !errors.As(err, &re) || re.DebugMessage == "" || re.Severity == dws.Minor {
					t.Errorf("error %#v", err)
				}
				continue
			}
			checkPlan(t, p)
			roundTrip(t, p)
		}
	})
}

// checkPlan checks what must be true for every plan.
func checkPlan(t *testing.T, p *Plan) {
	t.Helper()
	if p.Path == "/" || !path.IsAbs(p.Path) || path.Clean(p.Path) != p.Path || !safepath.MountPathText(p.Path) {
		t.Errorf("path %q", p.Path)
	}
	if p.Target != TargetFile && p.Target != TargetDirectory || p.Source() == "" || strings.ContainsAny(p.Source(), " $;\n") {
		t.Errorf("target %q, source %q", p.Target, p.Source())
	}
	for _, steps := range [][]Step{p.Mount, p.Unmount} {
		seen := map[string]bool{}
		for _, s := range steps {
			if seen[s.Name] || s.Name == "" || s.Fail == "" {
				t.Errorf("step %+v", s)
			}
			seen[s.Name] = true
			switch s.Kind {
			case Hook:
				if s.Shell == "" || s.Argv != nil || !s.Hook || strings.Contains(s.Shell, "\x00") {
					t.Errorf("hook %+v", s)
				}
			case Mount, Unmount, LockStart, LockStop, Activate, Deactivate:
				if len(s.Argv) < 2 || s.Shell != "" || s.Hook || strings.ContainsAny(strings.Join(s.Argv, ""), "$\x00\n") {
					t.Errorf("command %+v", s)
				}
			default:
				if s.Argv != nil || s.Shell != "" || s.Hook {
					t.Errorf("action %+v", s)
				}
			}
		}
	}
}

// Planning must take less than 50 µs, which is negligible compared with one command.
func BenchmarkForMount(b *testing.B) {
	for _, c := range []string{dws.TypeLustre, dws.TypeGFS2} {
		b.Run(c, func(b *testing.B) {
			cm, profile := clientMount(c), template()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ForMount(cm, 0, profile, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("hooks", func(b *testing.B) {
		cm, profile := clientMount(dws.TypeGFS2), template()
		hooked(profile)
		for b.Loop() {
			if _, err := ForMount(cm, 0, profile, Options{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// FuzzFields sets the texts of an otherwise valid object and profile, which covers more
// code than mutated JSON.
func FuzzFields(f *testing.F) {
	f.Add("/mnt/nnf/$JOBID", "f9Tk", ownerUID, "job7fs", "1@tcp", "$DEVICE $MOUNT_PATH", "echo $DEVICE", "$VG_NAME", "site")
	f.Add("/mnt//$X/", "", "", "-", "-o", "-o 'a b' $X", "$X", "$X", "$DEVICE$X")
	f.Fuzz(func(t *testing.T, mountPath, job, uid, fsname, nids, command, hook, key, value string) {
		for _, typ := range []string{dws.TypeRaw, dws.TypeXFS, dws.TypeGFS2, dws.TypeLustre} {
			cm, p := clientMount(typ), template()
			cm.Labels[api.LabelJobID], cm.Labels[api.LabelTargetOwnerUID] = job, uid
			m := &cm.Spec.Mounts[0]
			m.MountPath = mountPath
			if typ == dws.TypeLustre {
				m.Device.Lustre.FileSystemName, m.Device.Lustre.MGSAddresses = fsname, nids
				l := &p.Data.Lustre
				l.Client.CommandLines.Mount, l.Client.CommandLines.PreMount = command, []string{hook}
				l.Client.VariableOverride, l.OST.VariableOverride = map[string]string{key: value}, map[string]string{key: value}
			} else {
				s := section(p, typ)
				s.FileSystem.Compute.Mount, s.BlockDevice.Compute.LVChange.Activate = command, command
				s.FileSystem.Compute.User.PreMount = []string{hook}
				s.VariableOverride = map[string]string{key: value}
			}
			plan, err := ForMount(cm, 0, p, Options{})
			if err == nil {
				checkPlan(t, plan)
			} else if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("the error is not printable: %q", err)
			}
		}
	})
}
