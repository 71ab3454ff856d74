package kube

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"
)

// maxFrame bounds one event of a watch. etcd holds objects of 1.5 MiB at most.
const maxFrame = 4 << 20

var (
	errFrameTooBig = fmt.Errorf("an event of the watch is larger than %d MiB", maxFrame>>20)
	errBadFrame    = errors.New("the watch sent something that is not an event")
)

// frame is one event of a watch, its object still encoded.
type frame struct {
	Type   string             `json:"type"`
	Object stdjson.RawMessage `json:"object"`
}

// frames decodes the body of a watch.
type frames struct {
	dec   *stdjson.Decoder
	limit *boundedReader
}

func newFrames(body io.Reader) *frames {
	b := &boundedReader{body, maxFrame, errFrameTooBig}
	return &frames{dec: stdjson.NewDecoder(b), limit: b}
}

// next returns the next event. io.EOF means that the server ended the watch
// between two events, io.ErrUnexpectedEOF that it was cut within one.
func (f *frames) next() (frame, error) {
	var out frame
	err := f.dec.Decode(&out)
	f.limit.left = maxFrame
	var syntax *stdjson.SyntaxError
	var shape *stdjson.UnmarshalTypeError
	switch {
	case err == nil && out.Type == "":
		return frame{}, errBadFrame
	case errors.As(err, &syntax), errors.As(err, &shape):
		return frame{}, fmt.Errorf("%w: %v", errBadFrame, err)
	}
	return out, err
}

// header is what we need to know of an object that we do not decode.
type header struct {
	Metadata struct {
		Name            string            `json:"name"`
		Namespace       string            `json:"namespace"`
		ResourceVersion string            `json:"resourceVersion"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
}

// headerOf decodes as strictly about upper and lower case as the objects
// themselves are decoded, so that both agree on what an object is called.
func headerOf(raw []byte) (header, error) {
	var h header
	if err := json.Unmarshal(raw, &h); err != nil {
		return h, fmt.Errorf("%w: %v", errBadFrame, err)
	}
	return h, nil
}

// endsInitialEvents reports whether a bookmark closes the initial state.
func (h header) endsInitialEvents() bool {
	return h.Metadata.Annotations[metav1.InitialEventsAnnotationKey] == "true"
}

// errorOf returns the API error of an ERROR event.
func errorOf(raw []byte) error {
	st, err := decodeStatus(raw)
	if err != nil {
		return fmt.Errorf("%w: error event: %v", errBadFrame, err)
	}
	return apierrors.FromObject(st)
}

// Object is a pointer to a Kubernetes object of type T.
type Object[T any] interface {
	*T
	metav1.Object
}

// Handler receives what a watch reports. All calls come from the goroutine of
// Watch, one after another; they must not block for long. Any may be nil.
type Handler[T any] struct {
	// Replace gives all objects: at the start, and when the position in the
	// server's history was lost. Objects that are missing were deleted, but
	// for those reported by Malformed just before.
	Replace func(items []*T)
	// Upsert gives an object that is new or has changed.
	Upsert func(obj *T)
	// Delete names an object that is gone.
	Delete func(namespace, name string)
	// Malformed names an object that exists but cannot be decoded, so that
	// nothing may be done for it. The caller's older copy, if any, is stale.
	Malformed func(namespace, name string, err error)
}

// sink is what the watch loop, which knows no types, feeds.
type sink interface {
	replace(items []stdjson.RawMessage)
	upsert(raw []byte) (resourceVersion string, err error)
	remove(namespace, name string)
}

// typed decodes for a Handler.
type typed[T any, P Object[T]] struct {
	h    Handler[T]
	log  *slog.Logger
	kind string
}

func (t *typed[T, P]) replace(items []stdjson.RawMessage) {
	out := make([]*T, 0, len(items))
	for _, raw := range items {
		// An item without even a name is reported and left out.
		if obj, _, _ := t.decode(raw); obj != nil {
			out = append(out, obj)
		}
	}
	if t.h.Replace != nil {
		t.h.Replace(out)
	}
}

func (t *typed[T, P]) upsert(raw []byte) (string, error) {
	obj, rv, err := t.decode(raw)
	if obj != nil && t.h.Upsert != nil {
		t.h.Upsert(obj)
	}
	return rv, err
}

func (t *typed[T, P]) remove(namespace, name string) {
	if t.h.Delete != nil {
		t.h.Delete(namespace, name)
	}
}

// decode returns nil for an object that cannot be used, which it has logged. err is set
// only if not even the name and version of the object can be read.
func (t *typed[T, P]) decode(raw []byte) (*T, string, error) {
	obj := new(T)
	p := P(obj)
	err := json.Unmarshal(raw, obj)
	if err == nil && p.GetName() != "" {
		p.SetManagedFields(nil)
		return obj, p.GetResourceVersion(), nil
	}
	h, herr := headerOf(raw)
	m := h.Metadata
	if herr == nil && (m.Name == "" || err == nil) {
		herr = fmt.Errorf("%w: %s without a name", errBadFrame, t.kind)
	}
	if herr != nil {
		t.log.Warn("an object of the API server has no readable name, it is ignored", "kind", t.kind, "error", clip(herr.Error()))
		return nil, "", herr
	}
	err = fmt.Errorf("%s %q cannot be decoded: %s", t.kind, m.Namespace+"/"+m.Name, clip(err.Error()))
	t.log.Warn("an object cannot be decoded, nothing is done for it", "kind", t.kind,
		"namespace", m.Namespace, "name", m.Name, "error", err)
	if t.h.Malformed != nil {
		t.h.Malformed(m.Namespace, m.Name, err)
	}
	return nil, m.ResourceVersion, nil
}
