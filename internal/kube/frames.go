package kube

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"

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
	limit *budget
}

func newFrames(body io.Reader) *frames {
	b := &budget{r: body, left: maxFrame}
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

// budget fails when one event needs more than what is left.
type budget struct {
	r    io.Reader
	left int
}

func (b *budget) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errFrameTooBig
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
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

// endsInitialEvents tells whether a bookmark closes the initial state.
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
