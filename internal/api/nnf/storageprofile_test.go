package nnf

import (
	"encoding/json"
	"reflect"
	"testing"
)

// profile has the path of every field as its value, so that the test detects wrong keys. It
// also has fields of the rabbit, which must be ignored.
const profile = `{
  "apiVersion": "nnf.cray.hpe.com/v1alpha11", "kind": "NnfStorageProfile",
  "metadata": {"name": "job7-0", "namespace": "default", "labels": {"a": "b"}},
  "data": {
    "pinned": true, "default": false,
    "rawStorage": {"capacityScalingFactor": "1.0", "blockDeviceCommands": {"sharedVg": false}, "userCommands": {"postSetup": ["no"]}},
    "xfsStorage": {"blockDeviceCommands": {"sharedVg": true}, "variableOverride": {"$A": "x"}},
    "gfs2Storage": {
      "blockDeviceCommands": {
        "sharedVg": true,
        "rabbitCommands": {"lvChange": {"activate": "no"}, "userCommands": {"preActivate": ["no"]}},
        "computeCommands": {
          "vgChange": {"lockStart": "vg-start", "lockStop": "vg-stop"},
          "lvChange": {"activate": "lv-on", "deactivate": "lv-off"},
          "userCommands": {"preActivate": ["a1", "a2"], "postActivate": ["b"], "preDeactivate": ["c"], "postDeactivate": ["d"]}
        }
      },
      "fileSystemCommands": {
        "rabbitCommands": {"mount": "no"},
        "computeCommands": {
          "mount": "m", "unmount": "u",
          "userCommands": {"preMount": ["e"], "postMount": ["f"], "preUnmount": ["g"], "postUnmount": ["h"]}
        }
      }
    },
    "lustreStorage": {
      "mgtOptions": {"variableOverride": {"$NO": "no"}},
      "ostOptions": {"variableOverride": {"$FSNAME": "o"}},
      "clientOptions": {
        "variableOverride": {"$MGS_NID": "c"},
        "commandlines": {
          "mountRabbit": "no", "mountCompute": "lm", "unmountCompute": "lu",
          "rabbitPreMount": ["no"],
          "computePreMount": ["i"], "computePostMount": ["j"], "computePreUnmount": ["k"], "computePostUnmount": ["l"]
        }
      }
    }
  }
}`

func decode(t *testing.T) *StorageProfile {
	t.Helper()
	p := &StorageProfile{}
	if err := json.Unmarshal([]byte(profile), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDecode(t *testing.T) {
	p := decode(t)
	d := &p.Data
	if !d.Pinned || d.Raw.BlockDevice.SharedVG || !d.XFS.BlockDevice.SharedVG || !d.GFS2.BlockDevice.SharedVG {
		t.Errorf("flags of %+v", d)
	}
	b, f, c := &d.GFS2.BlockDevice.Compute, &d.GFS2.FileSystem.Compute, &d.Lustre.Client
	texts := []struct{ name, got, want string }{
		{"lockStart", b.VGChange.LockStart, "vg-start"}, {"lockStop", b.VGChange.LockStop, "vg-stop"},
		{"activate", b.LVChange.Activate, "lv-on"}, {"deactivate", b.LVChange.Deactivate, "lv-off"},
		{"mount", f.Mount, "m"}, {"unmount", f.Unmount, "u"},
		{"mountCompute", c.CommandLines.Mount, "lm"}, {"unmountCompute", c.CommandLines.Unmount, "lu"},
		{"xfs override", d.XFS.VariableOverride["$A"], "x"},
		{"ost override", d.Lustre.OST.VariableOverride["$FSNAME"], "o"},
		{"client override", c.VariableOverride["$MGS_NID"], "c"},
	}
	for _, x := range texts {
		if x.got != x.want {
			t.Errorf("%s is %q, want %q", x.name, x.got, x.want)
		}
	}
	hooks := []struct {
		name      string
		got, want []string
	}{
		{"preActivate", b.User.PreActivate, []string{"a1", "a2"}}, {"postActivate", b.User.PostActivate, []string{"b"}},
		{"preDeactivate", b.User.PreDeactivate, []string{"c"}}, {"postDeactivate", b.User.PostDeactivate, []string{"d"}},
		{"preMount", f.User.PreMount, []string{"e"}}, {"postMount", f.User.PostMount, []string{"f"}},
		{"preUnmount", f.User.PreUnmount, []string{"g"}}, {"postUnmount", f.User.PostUnmount, []string{"h"}},
		{"computePreMount", c.CommandLines.PreMount, []string{"i"}}, {"computePostMount", c.CommandLines.PostMount, []string{"j"}},
		{"computePreUnmount", c.CommandLines.PreUnmount, []string{"k"}}, {"computePostUnmount", c.CommandLines.PostUnmount, []string{"l"}},
	}
	for _, x := range hooks {
		if !reflect.DeepEqual(x.got, x.want) {
			t.Errorf("%s is %q, want %q", x.name, x.got, x.want)
		}
	}
}

func TestDecodeEmpty(t *testing.T) {
	p := &StorageProfile{}
	if err := json.Unmarshal([]byte(`{"data":{}}`), p); err != nil || p.Data.Pinned {
		t.Errorf("%+v, %v", p, err)
	}
}
