package datamovement

import (
	"encoding/hex"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Encodings that are independent of the generated code: each group is one field, key byte
// first (number shifted left by three, plus 0 for a number and 2 for text or a message).
var encodings = []struct {
	name    string
	message proto.Message
	hex     string
}{
	{"empty create response means success", &DataMovementCreateResponse{}, ""},
	{"empty status response means pending and invalid", &DataMovementStatusResponse{}, ""},
	{"create request, every field",
		&DataMovementCreateRequest{
			Workflow: &DataMovementWorkflow{Name: "job7", Namespace: "default"},
			Source:   "/a/", Destination: "/b",
			Dryrun: true, DcpOptions: "-p", LogStdout: true, StoreStdout: true,
			Slots: 8, MaxSlots: 300, Profile: "fast", MpirunOptions: "-q",
		},
		`0a0f 0a046a6f6237 120764656661756c74
		 1203 2f612f   1a02 2f62
		 2001   2a02 2d70   3001   3801
		 4008   48ac02   5204 66617374   5a02 2d71`},
	{"slots of -1 are ten bytes",
		&DataMovementCreateRequest{Slots: -1, MaxSlots: -1},
		`40ffffffffffffffffff01 48ffffffffffffffffff01`},
	{"create response that failed",
		&DataMovementCreateResponse{Uid: "u", Status: DataMovementCreateResponse_FAILED, Message: "no"},
		`0a0175 1001 1a026e6f`},
	{"status request that waits without limit",
		&DataMovementStatusRequest{Workflow: &DataMovementWorkflow{Name: "w"}, Uid: "nnf-dm-x", MaxWaitTime: -1},
		`0a03 0a0177   1208 6e6e662d646d2d78   18ffffffffffffffffff01`},
	{"status request that waits for a second",
		&DataMovementStatusRequest{Uid: "u", MaxWaitTime: 1},
		`120175 1801`},
	{"status response, every field",
		&DataMovementStatusResponse{
			State: DataMovementStatusResponse_COMPLETED, Status: DataMovementStatusResponse_SUCCESS, Message: "m",
			CommandStatus: &DataMovementCommandStatus{Command: "c", Progress: 100, ElapsedTime: "1s", LastMessage: "l\n", LastMessageTime: "t"},
			StartTime:     "s", EndTime: "e",
		},
		`0803 1002 1a016d
		 2210 0a0163 1064 1a023173 22026c0a 2a0174
		 2a0173 320165`},
	{"running with an unknown status",
		&DataMovementStatusResponse{State: DataMovementStatusResponse_RUNNING, Status: DataMovementStatusResponse_UNKNOWN_STATUS},
		`0802 1005`},
	{"empty block of the command",
		&DataMovementStatusResponse{CommandStatus: &DataMovementCommandStatus{}},
		`2200`},
	{"delete response of an active one",
		&DataMovementDeleteResponse{Status: DataMovementDeleteResponse_ACTIVE, Message: "a"},
		`0803 120161`},
	{"cancel request",
		&DataMovementCancelRequest{Workflow: &DataMovementWorkflow{Namespace: "n"}, Uid: "u"},
		`0a03 12016e 120175`},
	{"list response",
		&DataMovementListResponse{Uids: []string{"a", "", "b"}},
		`0a0161 0a00 0a0162`},
	{"version response",
		&DataMovementVersionResponse{Version: "v1", ApiVersions: []string{"1"}},
		`0a027631 120131`},
}

func TestEncodings(t *testing.T) {
	for _, c := range encodings {
		want, err := hex.DecodeString(strings.Join(strings.Fields(c.hex), ""))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.message)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: got %x, %v, want %x", c.name, got, err, want)
		}
		back := c.message.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(want, back); err != nil || !proto.Equal(back, c.message) {
			t.Errorf("%s: reads as %v, %v", c.name, back, err)
		}
	}
}

// Fields that a newer client sends are ignored.
func TestUnknownFields(t *testing.T) {
	in := protowire.AppendTag(nil, 1000, protowire.BytesType)
	in = protowire.AppendString(in, "from the future")
	in = append(in, 0x12, 1, 'u')
	req := &DataMovementStatusRequest{}
	if err := proto.Unmarshal(in, req); err != nil || req.GetUid() != "u" {
		t.Errorf("%v, %v", req, err)
	}
}

// Texts that are not UTF-8 are refused, in both directions.
func TestNotUTF8(t *testing.T) {
	if err := proto.Unmarshal([]byte{0x12, 1, 0xff}, &DataMovementStatusRequest{}); err == nil {
		t.Error("a request that is not UTF-8 is decoded")
	}
	if _, err := proto.Marshal(&DataMovementStatusResponse{Message: "\xff"}); err == nil {
		t.Error("a response that is not UTF-8 is encoded")
	}
}
