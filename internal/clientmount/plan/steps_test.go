package plan

import (
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// The order of the steps with one line in every hook list and all commands, then without
// one command at a time.
func TestOrder(t *testing.T) {
	const (
		up   = "preActivate[0] waitVG lockStart activate waitDevice postActivate[0] preMount[0] mount chown postMount[0]"
		down = "preUnmount[0] unmount postUnmount[0] preDeactivate[0] deactivate lockStop postDeactivate[0]"
	)
	full := func() (*dws.ClientMount, *nnf.StorageProfile) {
		cm, p := clientMount(dws.TypeGFS2), template()
		cm.Spec.Mounts[0].SetPermissions = true
		one := []string{"true"}
		b, f := &p.Data.GFS2.BlockDevice.Compute.User, &p.Data.GFS2.FileSystem.Compute.User
		b.PreActivate, b.PostActivate, b.PreDeactivate, b.PostDeactivate = one, one, one, one
		f.PreMount, f.PostMount, f.PreUnmount, f.PostUnmount = one, one, one, one
		return cm, p
	}
	tests := []struct {
		name   string
		change func(*nnf.Storage)
		gone   []string
	}{
		{"all", func(*nnf.Storage) {}, nil},
		{"no lock start", func(s *nnf.Storage) { s.BlockDevice.Compute.VGChange.LockStart = "" }, []string{"waitVG", "lockStart"}},
		{"blank lock start", func(s *nnf.Storage) { s.BlockDevice.Compute.VGChange.LockStart = " \n" }, []string{"waitVG", "lockStart"}},
		{"no lock stop", func(s *nnf.Storage) { s.BlockDevice.Compute.VGChange.LockStop = "" }, []string{"lockStop"}},
		{"no activate", func(s *nnf.Storage) { s.BlockDevice.Compute.LVChange.Activate = "" }, []string{"activate", "waitDevice"}},
		{"no deactivate", func(s *nnf.Storage) { s.BlockDevice.Compute.LVChange.Deactivate = "" }, []string{"deactivate"}},
		{"no mount", func(s *nnf.Storage) { s.FileSystem.Compute.Mount = "" }, []string{"mount"}},
		{"no unmount", func(s *nnf.Storage) { s.FileSystem.Compute.Unmount = "" }, nil},
		{"neither mount nor unmount", func(s *nnf.Storage) { s.FileSystem.Compute.Mount, s.FileSystem.Compute.Unmount = "", " " }, []string{"mount", "unmount"}},
		{"empty hook lines", func(s *nnf.Storage) { s.FileSystem.Compute.User.PreMount = []string{"", " "} }, []string{"preMount[0]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cm, profile := full()
			tt.change(&profile.Data.GFS2)
			p := mustPlan(t, cm, profile, Options{})
			want := func(all string) string {
				return strings.Join(slices.DeleteFunc(strings.Fields(all), func(s string) bool { return slices.Contains(tt.gone, s) }), " ")
			}
			if got := names(p.Mount); got != want(up) {
				t.Errorf("mount steps\n got %s\nwant %s", got, want(up))
			}
			if got := names(p.Unmount); got != want(down) {
				t.Errorf("unmount steps\n got %s\nwant %s", got, want(down))
			}
		})
	}
}

// A hook keeps its index if a line before it is empty.
func TestHookNumbers(t *testing.T) {
	profile := template()
	profile.Data.XFS.FileSystem.Compute.User.PreMount = []string{"a", "", "c"}
	p := mustPlan(t, clientMount(dws.TypeXFS), profile, Options{})
	if got, want := names(p.Mount), "activate waitDevice preMount[0] preMount[2] mount"; got != want {
		t.Errorf("steps %q, want %q", got, want)
	}
}

func TestProfileFaults(t *testing.T) {
	tests := []struct {
		name   string
		typ    string
		change func(*nnf.StorageProfile)
		pieces []string
	}{
		{"unknown variable", dws.TypeXFS, func(p *nnf.StorageProfile) { p.Data.XFS.FileSystem.Compute.Mount = "$DEVICE $HOST_COUNT" },
			[]string{"unable to mount file system: mount: unknown variable $HOST_COUNT"}},
		{"variable of another context", dws.TypeXFS, func(p *nnf.StorageProfile) { p.Data.XFS.BlockDevice.Compute.LVChange.Activate = "$DEVICE" },
			[]string{"unable to activate block device: lvchange: unknown variable $DEVICE"}},
		{"logical volume in vgchange", dws.TypeGFS2, func(p *nnf.StorageProfile) { p.Data.GFS2.BlockDevice.Compute.VGChange.LockStart = "$LV_NAME" },
			[]string{"vgchange: unknown variable $LV_NAME"}},
		{"shell syntax", dws.TypeXFS, func(p *nnf.StorageProfile) { p.Data.XFS.FileSystem.Compute.Unmount = "$MOUNT_PATH || true" },
			[]string{"unable to unmount file system: umount:", "use a hook command"}},
		{"nothing left", dws.TypeGFS2, func(p *nnf.StorageProfile) { p.Data.GFS2.BlockDevice.Compute.VGChange.LockStop = "$DEVICE_LIST" },
			[]string{"unable to deactivate block device", "is empty after expansion"}},
		{"cycle in a hook", dws.TypeXFS, func(p *nnf.StorageProfile) {
			p.Data.XFS.VariableOverride = map[string]string{"$A": "$B", "$B": "$A"}
			p.Data.XFS.FileSystem.Compute.User.PostMount = []string{"true", "echo $A"}
		}, []string{"unable to run file system PostMount commands: postMount[1]", "$A -> $B -> $A"}},
		{"NUL in a hook", dws.TypeXFS, func(p *nnf.StorageProfile) { p.Data.XFS.BlockDevice.Compute.User.PreActivate = []string{"a\x00"} },
			[]string{"preActivate[0]", "NUL"}},
		{"hook of a megabyte", dws.TypeXFS, func(p *nnf.StorageProfile) {
			p.Data.XFS.FileSystem.Compute.User.PreMount = []string{strings.Repeat("x", 1<<20)}
		}, []string{"preMount[0]", "too long"}},
		{"very many hooks", dws.TypeXFS, func(p *nnf.StorageProfile) {
			p.Data.XFS.FileSystem.Compute.User.PreMount = make([]string, maxHooks+1)
		}, []string{"257 preMount lines"}},
		{"bad override key", dws.TypeXFS, func(p *nnf.StorageProfile) { p.Data.XFS.VariableOverride = map[string]string{"X": ""} }, []string{`invalid key "X"`}},
		{"bad type", dws.TypeXFS, func(p *nnf.StorageProfile) { p.Data.XFS.VariableOverride = map[string]string{"$FSTYPE": "-o"} }, []string{"$FSTYPE"}},
		{"bad target", dws.TypeXFS, func(p *nnf.StorageProfile) { p.Data.XFS.VariableOverride = map[string]string{"$MOUNT_TARGET": "dir"} }, []string{"$MOUNT_TARGET", "file or directory"}},
		{"bad NIDs", dws.TypeLustre, func(p *nnf.StorageProfile) {
			p.Data.Lustre.OST.VariableOverride = map[string]string{"$MGS_NID": "a b"}
		}, []string{"$MGS_NID"}},
		{"bad file system name", dws.TypeLustre, func(p *nnf.StorageProfile) {
			p.Data.Lustre.OST.VariableOverride = map[string]string{"$FSNAME": "a/b"}
		}, []string{"$FSNAME"}},
		{"cycle in a lustre name", dws.TypeLustre, func(p *nnf.StorageProfile) {
			p.Data.Lustre.Client.VariableOverride = map[string]string{"$FS_NAME": "$FS_NAME"}
		}, []string{"$FS_NAME -> $FS_NAME"}},
		{"bad lustre override key", dws.TypeLustre, func(p *nnf.StorageProfile) {
			p.Data.Lustre.OST.VariableOverride = map[string]string{"": ""}
		}, []string{"invalid key"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			profile := template()
			tt.change(profile)
			p, err := ForMount(clientMount(tt.typ), 0, profile, Options{})
			if err == nil {
				t.Fatalf("accepted:\n%s", render(p))
			}
			wantError(t, err, dws.Major, tt.pieces...)
		})
	}
}

// A profile with a mount command always results in an unmount step: its own command, or
// umount(8).
func TestUnmountCommand(t *testing.T) {
	tests := []struct {
		name           string
		mount, unmount string
		want           []string // the command; nil = no step
	}{
		{"both", "$DEVICE $MOUNT_PATH", "-l $MOUNT_PATH", []string{"umount", "-l", jobPath}},
		{"no unmount", "$DEVICE $MOUNT_PATH", "", []string{"umount", jobPath}},
		{"blank unmount", "$DEVICE $MOUNT_PATH", " \n\t", []string{"umount", jobPath}},
		{"no mount", "", "$MOUNT_PATH", []string{"umount", jobPath}},
		{"neither", " ", "", nil},
	}
	for _, typ := range []string{dws.TypeXFS, dws.TypeGFS2, dws.TypeRaw, dws.TypeLustre} {
		for _, tt := range tests {
			t.Run(typ+"/"+tt.name, func(t *testing.T) {
				profile := template()
				if typ == dws.TypeLustre {
					c := &profile.Data.Lustre.Client.CommandLines
					c.Mount, c.Unmount = tt.mount, tt.unmount
				} else {
					c := &section(profile, typ).FileSystem.Compute
					c.Mount, c.Unmount = tt.mount, tt.unmount
				}
				var got []string
				for _, s := range mustPlan(t, clientMount(typ), profile, Options{}).Unmount {
					if s.Kind == Unmount {
						got = s.Argv
					}
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("unmount command %q, want %q", got, tt.want)
				}
			})
		}
	}
}

// The site's options come first, so that those of the profile override them. A bind mount
// of a device gets none.
func TestMountOptions(t *testing.T) {
	fstype := func(fs string) map[string]string { return map[string]string{"$FSTYPE": fs} }
	tests := []struct {
		name      string
		typ       string
		options   []string
		template  string
		overrides map[string]string
		want      string // the command up to the device
	}{
		{"xfs", dws.TypeXFS, []string{"nosuid", "nodev"}, "$DEVICE $MOUNT_PATH", nil, "mount -t xfs -o nosuid,nodev D"},
		{"gfs2", dws.TypeGFS2, []string{"nosuid", "nodev"}, "$DEVICE $MOUNT_PATH", nil, "mount -t gfs2 -o nosuid,nodev D"},
		{"lustre", dws.TypeLustre, []string{"nosuid", "nodev"}, "$MGS_NID:/$FS_NAME $MOUNT_PATH", nil, "mount -t lustre -o nosuid,nodev D"},
		{"raw", dws.TypeRaw, []string{"nosuid", "nodev"}, "-o bind $DEVICE $MOUNT_PATH", nil, "mount -t none -o bind D"},
		{"the profile's come later", dws.TypeXFS, []string{"nosuid", "nodev"}, "-o suid $DEVICE $MOUNT_PATH", nil, "mount -t xfs -o nosuid,nodev -o suid D"},
		{"other file system type", dws.TypeXFS, []string{"nosuid"}, "$DEVICE $MOUNT_PATH", fstype("ext4"), "mount -t ext4 -o nosuid D"},
		{"a file system in place of the raw device", dws.TypeRaw, []string{"nodev"}, "$DEVICE $MOUNT_PATH", fstype("ext4"), "mount -t ext4 -o nodev D"},
		{"none", dws.TypeXFS, nil, "$DEVICE $MOUNT_PATH", nil, "mount -t xfs D"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			profile := template()
			if tt.typ == dws.TypeLustre {
				profile.Data.Lustre.Client.CommandLines.Mount = tt.template
			} else {
				s := section(profile, tt.typ)
				s.FileSystem.Compute.Mount, s.VariableOverride = tt.template, tt.overrides
			}
			p := mustPlan(t, clientMount(tt.typ), profile, Options{MountOptions: tt.options})
			got := strings.Join(p.MountStep(Mount).Argv, " ")
			if want := strings.Replace(tt.want, " D", " "+p.Source()+" "+jobPath, 1); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// The servers file is written if the site has enabled it and the servers can be looked up
// through the owner of the object, whoever owns the mounted directory.
func TestServersFile(t *testing.T) {
	tests := []struct {
		typ, owner     string
		wanted         bool
		setPermissions bool
		want           string
	}{
		{dws.TypeLustre, "NnfStorage", true, true, "mount chown serversFile"},
		{dws.TypeLustre, "NnfStorage", true, false, "mount serversFile"},
		{dws.TypeLustre, "NnfStorage", false, true, "mount chown"},
		{dws.TypeLustre, "NnfStorage", false, false, "mount"},
		{dws.TypeLustre, "NnfAccess", true, true, "mount chown"},
		{dws.TypeLustre, "", true, true, "mount chown"},
		{dws.TypeXFS, "NnfStorage", true, true, "activate waitDevice mount chown"},
	}
	for _, tt := range tests {
		cm := clientMount(tt.typ)
		cm.Labels[api.LabelOwnerKind] = tt.owner
		m := &cm.Spec.Mounts[0]
		m.SetPermissions, m.UserID, m.GroupID = tt.setPermissions, 1001, 1002
		p := mustPlan(t, cm, template(), Options{ServersFile: tt.wanted})
		if got := names(p.Mount); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
		if s := p.MountStep(ServersFile); s != nil && (s.UID != 1001 || s.GID != 1002) {
			t.Errorf("%+v: owner %d:%d", tt, s.UID, s.GID)
		}
	}
}

// The steps that release the volume are the last ones, from the first preDeactivate hook
// on, and no mount step releases it.
func TestReleases(t *testing.T) {
	for typ, want := range map[string]string{
		dws.TypeRaw:    "preDeactivate[0] preDeactivate[1] deactivate postDeactivate[0] postDeactivate[1]",
		dws.TypeXFS:    "preDeactivate[0] preDeactivate[1] deactivate postDeactivate[0] postDeactivate[1]",
		dws.TypeGFS2:   "preDeactivate[0] preDeactivate[1] deactivate lockStop postDeactivate[0] postDeactivate[1]",
		dws.TypeLustre: "",
	} {
		t.Run(typ, func(t *testing.T) {
			profile := template()
			hooked(profile)
			p := stored(t, mustPlan(t, clientMount(typ), profile, Options{}))
			var got []Step
			for _, s := range p.Unmount {
				if s.Releases() {
					got = append(got, s)
				}
			}
			if names(got) != want {
				t.Errorf("releasing steps %q, want %q", names(got), want)
			}
			if !strings.HasSuffix(names(p.Unmount), want) {
				t.Errorf("the releasing steps are not the last ones of %q", names(p.Unmount))
			}
			for _, s := range p.Mount {
				if s.Releases() {
					t.Errorf("mount step %s releases the volume", s.Name)
				}
			}
		})
	}
}
