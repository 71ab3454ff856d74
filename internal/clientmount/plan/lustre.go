package plan

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// lustre plans a Lustre client mount (contract clientmountd.md 5.3). There is no
// block device: the servers are elsewhere.
func (p *Plan) lustre(cm *dws.ClientMount, m *dws.Mount, profile *nnf.StorageProfile, o Options) error {
	client, ost := &profile.Data.Lustre.Client, profile.Data.Lustre.OST.VariableOverride
	for _, overrides := range []map[string]string{client.VariableOverride, ost} {
		if err := checkOverrides(overrides); err != nil {
			return err
		}
	}
	p.Lustre = Lustre{MGS: m.Device.Lustre.MGSAddresses, FSName: m.Device.Lustre.FileSystemName}
	if err := p.lustreNames("$MGS_NID", ost["$MGS_NID"], "$FSNAME", ost["$FSNAME"]); err != nil {
		return err
	}
	v := newVariables(p.lustreVariables(cm, m, ost), client.VariableOverride)
	// The client's own overrides change what is mounted, so they also change
	// what must be found in the mount table afterwards.
	nids, err := v.expand(client.VariableOverride["$MGS_NID"], everything)
	if err != nil {
		return err
	}
	fsname, err := v.expand(client.VariableOverride["$FS_NAME"], everything)
	if err != nil {
		return err
	}
	if err := p.lustreNames("$MGS_NID", nids, "$FS_NAME", fsname); err != nil {
		return err
	}
	if v, err = p.mountPath(m, v, o); err != nil {
		return err
	}

	c := &client.CommandLines
	up := sequence{steps: make([]Step, 0, 4)}
	up.hooks("preMount", failPreMount, v, c.PreMount)
	up.verb("mount", Mount, failMount, v, c.Mount, p.mountProgram(o)...)
	up.permissions(m)
	up.serversFile(cm, m, o)
	up.hooks("postMount", failPostMount, v, c.PostMount)

	down := sequence{steps: make([]Step, 0, 4)}
	down.hooks("preUnmount", failPreUnmount, v, c.PreUnmount)
	down.unmount(p, v, c.Mount, c.Unmount)
	down.hooks("postUnmount", failPostUnmount, v, c.PostUnmount)

	p.Mount, p.Unmount = up.steps, down.steps
	if up.err != nil {
		return up.err
	}
	return down.err
}

// lustreNames replaces the names by overrides that are not empty.
func (p *Plan) lustreNames(nidKey, nids, fsKey, fsname string) error {
	if nids != "" {
		if !nidList(nids) {
			return badOverride(nidKey, nids, nidRule)
		}
		p.Lustre.MGS = nids
	}
	if fsname != "" {
		if !lustreName(fsname) {
			return badOverride(fsKey, fsname, lustreNameRule)
		}
		p.Lustre.FSName = fsname
	}
	return nil
}

// lustreVariables are those of Lustre commands and hooks. Client mounts have no
// targets of their own, so most of them are constants here.
func (p *Plan) lustreVariables(cm *dws.ClientMount, m *dws.Mount, ost map[string]string) []variable {
	i := m.Device.DeviceReference.Data
	kind, backfs := "OST", "none"
	if t := ost["$TARGET_TYPE"]; only(t, "") && t != "" {
		kind = strings.ToUpper(t)
	}
	if b := ost["$BACKFS"]; only(b, "") && b != "" {
		backfs = b
	}
	out := append(common(cm, m),
		data("$MGS_NID", p.Lustre.MGS), data("$FS_NAME", p.Lustre.FSName),
		data("$INDEX", strconv.Itoa(i)), data("$BACKFS", backfs),
		data("$TARGET_NAME", fmt.Sprintf("%s-%s%04d", p.Lustre.FSName, kind, i)),
		data("$DEVICE", "/dev/mock"), data("$ZVOL_NAME", "/dev/mock"))
	for _, key := range []string{"$NUM_MDTS", "$NUM_MGTS", "$NUM_MGTMDTS", "$NUM_OSTS", "$NUM_NNFNODES"} {
		out = append(out, data(key, "0"))
	}
	return out
}
