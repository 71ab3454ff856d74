package datamovement

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, v any) {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	file := "testdata/" + name + ".golden"
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s:\n%s\nwant\n%s", file, b.Bytes(), want)
	}
}

// The objects match the golden files exactly, including omitted fields.
func TestObjectGolden(t *testing.T) {
	for _, c := range []struct {
		name, typ string
		change    func(*Parts)
	}{
		{"gfs2", "gfs2", nil},
		{"lustre", "lustre", nil},
		{"all-options", "lustre", func(p *Parts) {
			r := &p.Request
			r.Dryrun, r.LogStdout, r.StoreStdout, r.DCPOptions, r.MPIRunOptions = true, true, true, "--chunksize 4MB", "--map-by node"
			r.Slots, r.MaxSlots, r.Profile, r.Key, r.Batch = 0, 0, "fast", "my-key", "batch-00112233445566778899"
			p.Profile = profile("fast")
		}},
		{"no-labels", "gfs2", func(p *Parts) {
			p.Mount.DirectiveIndex, p.Mount.JobID = "", ""
			p.Request.Slots, p.Identity = -1, Identity{}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := parts(c.typ)
			if c.change != nil {
				c.change(p)
			}
			dm, err := Object(p)
			if err != nil {
				t.Fatal(err)
			}
			dm.APIVersion = "nnf.cray.hpe.com/v1alpha11"
			golden(t, c.name, dm)
		})
	}
}

// The object that the rabbit expects, independent of the code under test.
const example = `{
  "apiVersion": "nnf.cray.hpe.com/v1alpha11", "kind": "NnfDataMovement",
  "metadata": {"generateName": "nnf-dm-node-", "namespace": "rabbit-01", "labels": {
    "dm.cray.hpe.com/initiator": "compute-01",
    "nnf.cray.hpe.com/teardown_state": "PostRun",
    "nnf.cray.hpe.com/directive_index": "0",
    "nnf.cray.hpe.com/job_id": "4711",
    "dataworkflowservices.github.io/workflow.name": "job7",
    "dataworkflowservices.github.io/workflow.namespace": "default",
    "dataworkflowservices.github.io/workflow.uid": "11110000-0000-4000-8000-00000000000a",
    "dataworkflowservices.github.io/owner.kind": "Workflow",
    "dataworkflowservices.github.io/owner.name": "job7",
    "dataworkflowservices.github.io/owner.namespace": "default",
    "dataworkflowservices.github.io/owner.uid": "11110000-0000-4000-8000-00000000000a"}},
  "spec": {
    "source": {"path": "/mnt/nnf/11110000-0000-4000-8000-00000000000a-0/rabbit-01-3/out/",
      "storageReference": {"kind": "NnfNodeStorage", "name": "default-job7-0-gfs2-0", "namespace": "rabbit-01"}},
    "destination": {"path": "/lus/global/alice/out/"},
    "userId": 1001, "groupId": 100,
    "profileReference": {"kind": "NnfDataMovementProfile", "name": "default", "namespace": "nnf-system"},
    "userConfig": {"slots": 8}}}`

func TestObjectExample(t *testing.T) {
	dm, err := Object(parts("gfs2"))
	if err != nil {
		t.Fatal(err)
	}
	dm.APIVersion = "nnf.cray.hpe.com/v1alpha11"
	have, err := json.Marshal(dm)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if json.Unmarshal(have, &a) != nil || json.Unmarshal([]byte(example), &b) != nil {
		t.Fatal("not JSON")
	}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if !bytes.Equal(x, y) {
		t.Errorf("\n%s\n%s", x, y)
	}
}

func TestObjectRefuses(t *testing.T) {
	for _, c := range []struct {
		name, typ string
		change    func(*Parts)
		kind      error
		reason    v2.ErrorReason
		text      string
	}{
		{"no workflow", "gfs2", func(p *Parts) { p.Workflow = nil }, ErrUnavailable, v2.ErrorReason_INTERNAL, "is incomplete"},
		{"no reference", "gfs2", func(p *Parts) { p.Mount.Reference = nil }, ErrUnavailable, v2.ErrorReason_INTERNAL, "is incomplete"},
		{"no profile", "gfs2", func(p *Parts) { p.Profile = nil }, ErrUnavailable, v2.ErrorReason_INTERNAL, "is incomplete"},
		{"options of a program that the profile does not run", "gfs2", func(p *Parts) { p.Request.DCPOptions = "-p"; p.Profile.Data.Command = "rsync $SRC" }, ErrInvalid, v2.ErrorReason_INVALID_FIELD,
			"does not run dcp"},
		{"no rabbit", "gfs2", func(p *Parts) { p.Rabbit = "" }, ErrUnavailable, v2.ErrorReason_UNAVAILABLE, "not known yet"},
		{"lustre without directive", "lustre", func(p *Parts) { p.Mount.DirectiveIndex = "" }, ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND,
			"unable to find directive index label on compute ClientMount, compute-01/default-job7-0-computes"},
		{"xfs", "xfs", nil, ErrInvalid, v2.ErrorReason_FILESYSTEM_NOT_SUPPORTED, "filesystem not supported: 'xfs'"},
	} {
		p := parts(c.typ)
		if c.change != nil {
			c.change(p)
		}
		_, err := Object(p)
		wantFault(t, err, c.kind, c.reason, c.text)
	}
	// Lustre needs no rabbit.
	p := parts("lustre")
	p.Rabbit = ""
	if dm, err := Object(p); err != nil || dm.Namespace != "nnf-dm-system" {
		t.Error(dm, err)
	}
}

// Slots keep their meaning in the object: 0 means none, negative means as in the profile.
func TestSlots(t *testing.T) {
	for n, want := range map[int32]string{-1: "{}", 0: `{"slots":0}`, 5: `{"slots":5}`} {
		got, err := json.Marshal(nnf.DataMovementConfig{Slots: slots(n)})
		if err != nil || string(got) != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

// A repeated request gets the same name, any other request gets a different one.
func TestKey(t *testing.T) {
	name := func(change func(*Parts)) string {
		p := parts("gfs2")
		p.Request.Key = "k"
		change(p)
		dm, err := Object(p)
		if err != nil {
			t.Fatal(err)
		}
		if dm.GenerateName != "" || dm.Labels[api.LabelRequestKey] == "" || !labelValue(dm.Labels[api.LabelRequestKey]) || CheckUID(dm.Name) != nil {
			t.Errorf("%+v", dm.ObjectMeta)
		}
		return dm.Name
	}
	first := name(func(*Parts) {})
	seen := map[string]string{first: "the first"}
	if again := name(func(p *Parts) { p.Request.Destination += "x" }); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	for what, change := range map[string]func(*Parts){
		"key":      func(p *Parts) { p.Request.Key = "k2" },
		"user":     func(p *Parts) { p.Identity.UID++ },
		"node":     func(p *Parts) { p.Node += "0" },
		"workflow": func(p *Parts) { p.Workflow.UID += "0" },
		"moved":    func(p *Parts) { p.Node += "4"; p.Workflow.UID = p.Workflow.UID[1:] },
	} {
		n := name(change)
		if other, ok := seen[n]; ok {
			t.Errorf("%s and %s both have the name %s", what, other, n)
		}
		seen[n] = what
	}
}

// The error for the same key with a different request names the field that differs.
func TestDiffers(t *testing.T) {
	keyed := func(change ...func(*nnf.DataMovement)) *nnf.DataMovement {
		return movement(append([]func(*nnf.DataMovement){label(api.LabelRequestKey, "d")}, change...)...)
	}
	if f := differs(keyed(), keyed()); f != "" {
		t.Errorf("differs in %s", f)
	}
	two := int32(2)
	for want, other := range map[string]*nnf.DataMovement{
		"request_key": keyed(label(api.LabelRequestKey, "e")), "workflow": keyed(label(api.LabelOwnerUID, "x")),
		"user":          keyed(func(d *nnf.DataMovement) { d.Spec.UserID++ }),
		"source":        keyed(func(d *nnf.DataMovement) { d.Spec.Source.Path += "x" }),
		"destination":   keyed(func(d *nnf.DataMovement) { d.Spec.Destination.Path += "x" }),
		"profile":       keyed(func(d *nnf.DataMovement) { d.Spec.ProfileReference.Name += "x" }),
		"dryrun":        keyed(func(d *nnf.DataMovement) { d.Spec.UserConfig.Dryrun = !d.Spec.UserConfig.Dryrun }),
		"dcpOptions":    keyed(func(d *nnf.DataMovement) { d.Spec.UserConfig.DCPOptions += "x" }),
		"mpirunOptions": keyed(func(d *nnf.DataMovement) { d.Spec.UserConfig.MPIRunOptions += "x" }),
		"logStdout":     keyed(func(d *nnf.DataMovement) { d.Spec.UserConfig.LogStdout = !d.Spec.UserConfig.LogStdout }),
		"storeStdout":   keyed(func(d *nnf.DataMovement) { d.Spec.UserConfig.StoreStdout = !d.Spec.UserConfig.StoreStdout }),
		"slots":         keyed(func(d *nnf.DataMovement) { d.Spec.UserConfig.Slots = &two }),
		"maxSlots":      keyed(func(d *nnf.DataMovement) { d.Spec.UserConfig.MaxSlots = &two }),
	} {
		for _, got := range []string{differs(other, keyed()), differs(keyed(), other)} {
			if got != want {
				t.Errorf("%s: differs in %q", want, got)
			}
		}
		wantFault(t, CheckRepeated(other, keyed()), ErrInvalid, v2.ErrorReason_INVALID_FIELD, "a different "+want)
	}
	if differs(movement(), movement()) == "" {
		t.Error("two movements without a key are equal")
	}
}

// A failed or cancelled movement is not returned as the result of a repeated request.
func TestKeyOfFailedMovement(t *testing.T) {
	ended := func(result string) func(*nnf.DataMovement) {
		return func(d *nnf.DataMovement) { d.Status.State, d.Status.Status = nnf.MovementFinished, result }
	}
	keyed := label(api.LabelRequestKey, "d")
	for text, dm := range map[string]*nnf.DataMovement{
		`has ended with status "Failed"`: movement(keyed, ended(nnf.MovementFailed)), `has ended with status "Invalid"`: movement(keyed, ended(nnf.MovementInvalid)),
		`has ended with status "Cancelled"`: movement(keyed, ended(nnf.MovementCancelled)),
		"is being cancelled":                movement(keyed, func(d *nnf.DataMovement) { d.Spec.Cancel = true }),
	} {
		wantFault(t, CheckRepeated(dm, movement(keyed)), ErrInvalid, v2.ErrorReason_INVALID_FIELD, text)
	}
	for what, dm := range map[string]*nnf.DataMovement{"new": movement(keyed), "success": movement(keyed, ended(nnf.MovementSuccess))} {
		if err := CheckRepeated(dm, movement(keyed)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestBatch(t *testing.T) {
	h := BatchHandle(node, wfUID, 1001, "r")
	if h != BatchHandle(node, wfUID, 1001, "r") || h == BatchHandle(node, wfUID, 1002, "r") || h == BatchHandle(node, wfUID, 1001, "s") {
		t.Error(h)
	}
	if again := BatchKey("k", 1); again != BatchKey("k", 1) {
		t.Error(again)
	}
	if !labelValue(h) || CheckHandle(h) != nil || CheckHandle("nnf-dm-abcde") == nil {
		t.Errorf("%s: %v", h, CheckHandle(h))
	}
	for _, bad := range []string{"", "batch-", "x", "batch-00112233445566778899aa", "batch-0011223344556677889g", "batch-a,b=c", h[6:], "batch-" + h} {
		if CheckHandle(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if BatchKey("", 1) != "" || BatchKey("k", 1) == BatchKey("k", 2) || BatchKey("k", 11) == BatchKey("k1", 1) {
		t.Error("wrong keys of pairs")
	}
}

func TestChooseProfile(t *testing.T) {
	p := func(name string, def bool) nnf.DataMovementProfile {
		return nnf.DataMovementProfile{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: nnf.DataMovementProfileData{Default: def}}
	}
	got, err := ChooseProfile([]nnf.DataMovementProfile{p("a", false), p("b", true)}, "")
	if err != nil || got.Name != "b" {
		t.Error(got, err)
	}
	_, err = ChooseProfile([]nnf.DataMovementProfile{p("a", false)}, "")
	wantFault(t, err, ErrFailed, v2.ErrorReason_PROFILE_NOT_FOUND, "unable to find a default NnfDataMovementProfile to use")
	_, err = ChooseProfile([]nnf.DataMovementProfile{p("b", true), p("c", false), p("a", true)}, "")
	wantFault(t, err, ErrFailed, v2.ErrorReason_PROFILE_NOT_FOUND, "more than one default NnfDataMovementProfile found; unable to pick one: [a b]")
	if got, err = ChooseProfile([]nnf.DataMovementProfile{p("a", true), p("b", true), p("c", false)}, "c"); err != nil || got.Name != "c" {
		t.Error(got, err)
	}
	_, err = ChooseProfile([]nnf.DataMovementProfile{p("a", true)}, "fast")
	wantFault(t, err, ErrFailed, v2.ErrorReason_PROFILE_NOT_FOUND, "unable to retrieve NnfDataMovementProfile: fast")
}
