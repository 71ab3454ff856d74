package server

import (
	"strings"
	"testing"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// A batch's key becomes one of each pair, which the caller has never seen and does
// not see in a refusal.
func TestBatchKeyReused(t *testing.T) {
	m := v2.NewDataMoverClient(serveRig(t).dial(t))
	r := &v2.CreateBatchRequest{Workflow: &v2.Workflow{Name: "job7", Namespace: "default"}, RequestKey: "my-key", Pairs: []*v2.CopyPair{
		{Source: mount0 + "/a", Destination: "/lus/global/a"},
	}}
	if b, err := m.CreateBatch(t.Context(), r); err != nil || b.Results[0].Error != nil {
		t.Fatalf("%v %v", b, err)
	}
	r.Pairs[0].Source = mount0 + "/b"
	b, err := m.CreateBatch(t.Context(), r)
	if err != nil || b.Uid != "" || b.Results[0].Error.GetReason() != v2.ErrorReason_INVALID_FIELD || !strings.Contains(b.Results[0].Error.GetMessage(), "request_key is refused: data movement") || !strings.Contains(b.Results[0].Error.GetMessage(), "differs in source") {
		t.Errorf("%v %v", b, err)
	}
}
