package world

import (
	"cmp"
	"fmt"
	"maps"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// ClientMountSpec says what ClientMount builds; empty fields get the values
// that the rabbit would give them.
type ClientMountSpec struct {
	Namespace string // the node's name unless set, as the daemon requires
	State     string // mounted
	Profile   string // name of the pinned profile in namespace default
	OwnerUID  string // of the NnfStorage, part of the volume group's name
	Directive string // "0"
	Job       string
	Workflow  string // name

	WorkflowUID string // the constant of this name
	Labels      map[string]string
	Mounts      []MountSpec
}

// MountSpec is one entry of spec.mounts.
type MountSpec struct {
	Path, Type string
	Device     string // lvm, reference or lustre; by the type unless set
	Index      int    // allocation index
	Storage    string // name of the NnfNodeStorage
	Rabbit     string // and its namespace
	NQN        string // with NSID: the namespace below
	NSID       string
	FSName     string // Lustre
	MGS        string
	UID, GID   int // with setPermissions
	Own        bool
}

// Values that the builders use unless told otherwise.
const (
	WorkflowUID = "11110000-0000-4000-8000-00000000000a"
	OwnerUID    = "2c5d0000-0000-4000-8000-00000000000b"
)

// VolumeNames returns the names that rabbit and compute agree on for the
// shipped profiles: the names that $VG_NAME and $LV_NAME have in them.
func VolumeNames(ownerUID, directive string, index int, shared bool) (vg, lv string) {
	if shared {
		return ownerUID + "_" + directive, fmt.Sprintf("lv-%d", index)
	}
	return fmt.Sprintf("%s_%s_%d", ownerUID, directive, index), "lv"
}

// ClientMount builds a ClientMount as the rabbit would for the node.
func ClientMount(name, node string, s ClientMountSpec) lab.Object {
	def := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	def(&s.Namespace, node)
	def(&s.State, "mounted")
	def(&s.Profile, "job7-0")
	def(&s.OwnerUID, OwnerUID)
	def(&s.Directive, "0")
	def(&s.Job, "f9Tk")
	def(&s.Workflow, "job7")
	def(&s.WorkflowUID, WorkflowUID)
	labels := map[string]any{
		api.LabelOwnerKind: "NnfAccess", api.LabelOwnerName: s.Workflow + "-0-computes", api.LabelOwnerNamespace: "default",
		api.LabelWorkflowName: s.Workflow, api.LabelWorkflowNamespace: "default", api.LabelWorkflowUID: s.WorkflowUID,
		api.LabelDirectiveIndex: s.Directive, api.LabelTargetDirectiveIndex: s.Directive, api.LabelTargetOwnerUID: s.OwnerUID,
		api.LabelJobID: s.Job, api.LabelPinnedProfileName: s.Profile, api.LabelPinnedProfileNamespace: "default",
	}
	for k, v := range s.Labels {
		if labels[k] = v; v == "" {
			delete(labels, k) // the way to leave a label out
		}
	}
	var mounts []any
	for _, m := range s.Mounts {
		mounts = append(mounts, m.object())
	}
	return lab.Object{
		"apiVersion": dws, "kind": "ClientMount",
		"metadata": map[string]any{"name": name, "namespace": s.Namespace, "labels": labels},
		"spec":     map[string]any{"node": node, "desiredState": s.State, "mounts": mounts},
	}
}

func (m MountSpec) object() map[string]any {
	if m.Device == "" {
		m.Device = "lvm"
		if m.Type == "lustre" {
			m.Device = "lustre"
		}
	}
	ref := map[string]any{"kind": "NnfNodeStorage", "name": cmp.Or(m.Storage, "default-job7-0-"+m.Type+"-0"), "namespace": cmp.Or(m.Rabbit, "rabbit-01")}
	device := map[string]any{"type": m.Device}
	switch m.Device {
	case "lustre":
		ref["kind"], ref["name"], ref["namespace"] = "NnfStorage", "job7-0", "default"
		device["lustre"] = map[string]any{"fileSystemName": m.FSName, "mgsAddresses": m.MGS}
	case "lvm":
		info := []any{}
		if m.NQN != "" {
			info = append(info, map[string]any{"deviceSerial": m.NQN, "namespaceID": m.NSID, "namespaceGUID": ""})
		}
		device["lvm"] = map[string]any{"deviceType": "nvme", "nvmeInfo": info}
	}
	device["deviceReference"] = map[string]any{"objectReference": ref, "data": m.Index}
	out := map[string]any{
		"mountPath": m.Path, "type": m.Type, "targetType": "directory", "options": "",
		"setPermissions": m.Own, "device": device,
	}
	if m.Type == "none" {
		out["targetType"], out["options"] = "file", "bind"
	}
	if m.Own {
		out["userID"], out["groupID"] = m.UID, m.GID
	}
	return out
}

// Hooks are the administrator's lines by name: preActivate, postActivate,
// preDeactivate, postDeactivate, preMount, postMount, preUnmount, postUnmount.
type Hooks map[string][]string

// ProfileSpec says how Profile departs from the shipped template.
type ProfileSpec struct {
	Unpinned  bool
	NotShared bool              // a volume group for each allocation
	Hooks     map[string]Hooks  // by mount type: none, xfs, gfs2, lustre
	Overrides map[string]string // variableOverride of every type
	Options   string            // in front of every mount command, as "-o suid"
	NoUnmount bool              // no unmount command in any section
}

// Profile builds a pinned storage profile with the commands of the template that
// nnf-sos ships.
func Profile(name string, s ProfileSpec) lab.Object {
	data := map[string]any{"pinned": !s.Unpinned, "default": false}
	for section, t := range map[string]struct {
		kind, activate, mount string
		locks                 bool
	}{
		"rawStorage":  {"none", "y", "-o bind $DEVICE $MOUNT_PATH", false},
		"xfsStorage":  {"xfs", "y", "$DEVICE $MOUNT_PATH", false},
		"gfs2Storage": {"gfs2", "ys", "$DEVICE $MOUNT_PATH", true},
	} {
		block := map[string]any{"lvChange": map[string]any{
			"activate": "--activate " + t.activate + " $VG_NAME/$LV_NAME", "deactivate": "--activate n $VG_NAME/$LV_NAME",
		}}
		if t.locks {
			block["vgChange"] = map[string]any{"lockStart": "--lock-start $VG_NAME", "lockStop": "--lock-stop $VG_NAME"}
		}
		fs := map[string]any{"mount": strings.TrimSpace(s.Options + " " + t.mount), "unmount": "$MOUNT_PATH"}
		if s.NoUnmount {
			delete(fs, "unmount")
		}
		hooks := s.Hooks[t.kind]
		addHooks(block, hooks, "preActivate", "postActivate", "preDeactivate", "postDeactivate")
		addHooks(fs, hooks, "preMount", "postMount", "preUnmount", "postUnmount")
		out := map[string]any{
			"blockDeviceCommands": map[string]any{"sharedVg": !s.NotShared, "computeCommands": block},
			"fileSystemCommands":  map[string]any{"computeCommands": fs},
		}
		if len(s.Overrides) > 0 {
			out["variableOverride"] = maps.Clone(s.Overrides)
		}
		data[section] = out
	}
	lines := map[string]any{"mountCompute": strings.TrimSpace(s.Options + " $MGS_NID:/$FS_NAME $MOUNT_PATH"), "unmountCompute": "$MOUNT_PATH"}
	if s.NoUnmount {
		delete(lines, "unmountCompute")
	}
	for hook, field := range map[string]string{
		"preMount": "computePreMount", "postMount": "computePostMount",
		"preUnmount": "computePreUnmount", "postUnmount": "computePostUnmount",
	} {
		if list := s.Hooks["lustre"][hook]; len(list) > 0 {
			lines[field] = list
		}
	}
	options := map[string]any{"commandlines": lines}
	if len(s.Overrides) > 0 {
		options["variableOverride"] = maps.Clone(s.Overrides)
	}
	data["lustreStorage"] = map[string]any{"clientOptions": options}
	return lab.Object{
		"apiVersion": nnf, "kind": "NnfStorageProfile",
		"metadata": map[string]any{"name": name, "namespace": "default"},
		"data":     data,
	}
}

func addHooks(section map[string]any, hooks Hooks, names ...string) {
	user := map[string]any{}
	for _, n := range names {
		if len(hooks[n]) > 0 {
			user[n] = hooks[n]
		}
	}
	if len(user) > 0 {
		section["userCommands"] = user
	}
}
