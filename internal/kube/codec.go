package kube

import (
	"errors"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
)

// statusCodec is all that client-go's rest client needs from us: it reads the
// Status object of a failed request. Our own objects are decoded by us, so the
// codecs for YAML, protobuf and CBOR stay out of the binary.
type statusCodec struct{}

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (s statusCodec) SupportedMediaTypes() []runtime.SerializerInfo {
	return []runtime.SerializerInfo{{
		MediaType: runtime.ContentTypeJSON, MediaTypeType: "application", MediaTypeSubType: "json",
		EncodesAsText: true, Serializer: s,
	}}
}

// EncoderForVersion implements runtime.NegotiatedSerializer.
func (s statusCodec) EncoderForVersion(e runtime.Encoder, _ runtime.GroupVersioner) runtime.Encoder {
	return e
}

// DecoderToVersion implements runtime.NegotiatedSerializer.
func (s statusCodec) DecoderToVersion(d runtime.Decoder, _ runtime.GroupVersioner) runtime.Decoder {
	return d
}

// Decode implements runtime.Decoder for Status objects only.
func (s statusCodec) Decode(data []byte, _ *schema.GroupVersionKind, _ runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	st, err := decodeStatus(data)
	if err != nil {
		return nil, nil, err
	}
	return st, &schema.GroupVersionKind{Version: "v1", Kind: "Status"}, nil
}

// Encode implements runtime.Encoder; nothing is encoded through it.
func (s statusCodec) Encode(runtime.Object, io.Writer) error {
	return errors.New("kube: this codec only reads status objects")
}

// Identifier implements runtime.Encoder.
func (s statusCodec) Identifier() runtime.Identifier { return "status" }

func decodeStatus(data []byte) (*metav1.Status, error) {
	st := new(metav1.Status)
	if err := json.Unmarshal(data, st); err != nil {
		return nil, err
	}
	if st.Kind != "Status" {
		return nil, errors.New("not a Status object")
	}
	return st, nil
}
