package datamovementv2

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestError(t *testing.T) {
	meta := map[string]string{MetadataField: "pairs[3].source"}
	err := NewError(ErrorReason_INVALID_FIELD, "pairs[3].source is refused", meta)
	meta[MetadataField] = "changed afterwards"

	s, ok := status.FromError(err)
	if !ok || s.Code() != codes.InvalidArgument || s.Message() != "pairs[3].source is refused" {
		t.Fatalf("status %v", s)
	}
	want := &errdetails.ErrorInfo{Reason: "INVALID_FIELD", Domain: "nnf-dm", Metadata: map[string]string{"field": "pairs[3].source"}}
	if d := s.Details(); len(d) != 1 || !proto.Equal(d[0].(proto.Message), want) {
		t.Errorf("details %v, want %v", d, want)
	}
	if r, m := Reason(fmt.Errorf("copy: %w", err)); r != ErrorReason_INVALID_FIELD || !maps.Equal(m, want.Metadata) {
		t.Errorf("Reason returns %v, %v", r, m)
	}
}

func TestReasonOfOtherErrors(t *testing.T) {
	for name, err := range map[string]error{
		"no error":         nil,
		"plain error":      errors.New("x"),
		"gRPC":             status.Error(codes.Unavailable, "no connection"),
		"other domain":     newError(codes.NotFound, "x", &errdetails.ErrorInfo{Reason: "INTERNAL", Domain: "example.com"}),
		"newer reason":     newError(codes.NotFound, "x", &errdetails.ErrorInfo{Reason: "FROM_THE_FUTURE", Domain: ErrorDomain}),
		"other detail":     newError(codes.NotFound, "x", &errdetails.RetryInfo{}),
		"number as a name": newError(codes.NotFound, "x", &errdetails.ErrorInfo{Reason: "3", Domain: ErrorDomain}),
	} {
		if r, _ := Reason(err); r != ErrorReason_ERROR_REASON_UNSPECIFIED {
			t.Errorf("%s: reason %v", name, r)
		}
	}
}

// Details with other domains before ours must not hide ours.
func TestReasonAfterOtherDetails(t *testing.T) {
	err := newError(codes.Unavailable, "x", &errdetails.RetryInfo{}, &errdetails.ErrorInfo{Reason: "QUOTA", Domain: "example.com"},
		&errdetails.ErrorInfo{Reason: "UNAVAILABLE", Domain: ErrorDomain})
	if r, _ := Reason(err); r != ErrorReason_UNAVAILABLE {
		t.Errorf("reason %v", r)
	}
}

// Every reason has a code, and the .proto file documents the same code.
func TestReasonCodes(t *testing.T) {
	text, err := os.ReadFile("datamovement.proto")
	if err != nil {
		t.Fatal(err)
	}
	_, enum, _ := strings.Cut(string(text), "enum ErrorReason {")
	enum, _, _ = strings.Cut(enum, "\n}")
	documented := map[string]string{}
	code := ""
	for line := range strings.Lines(enum) {
		line = strings.TrimSpace(line)
		if comment, ok := strings.CutPrefix(line, "// "); ok {
			if before, _, ok := strings.Cut(comment, ":"); ok && code == "" {
				code = before
			}
		} else if name, _, ok := strings.Cut(line, " = "); ok {
			documented[name], code = code, ""
		}
	}
	for n, name := range ErrorReason_name {
		r := ErrorReason(n)
		if r == ErrorReason_ERROR_REASON_UNSPECIFIED {
			continue
		}
		c, ok := reasonCodes[r]
		if !ok || c == codes.OK {
			t.Errorf("%s has no code", name)
			continue
		}
		var want codes.Code
		if err := want.UnmarshalJSON([]byte(`"` + documented[name] + `"`)); err != nil || want != c {
			t.Errorf("%s: code %v, but the .proto file says %q", name, c, documented[name])
		}
	}
	if ErrorReason_ERROR_REASON_UNSPECIFIED.Code() != codes.Internal || ErrorReason(99).Code() != codes.Internal {
		t.Error("a reason without a code must be an internal error, never OK")
	}
}
