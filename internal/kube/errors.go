package kube

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// ErrVersionGone means that the server does not serve, or no longer serves, the resource
// in this version: run discovery again. A server that has just started may also respond
// like this for a few seconds.
var ErrVersionGone = errors.New("the API server does not serve this version")

// ErrNotConfigured means that no API server is configured.
var ErrNotConfigured = errors.New("no API server configured")

// ErrNotServed means that the server serves none of the versions that this program
// supports.
var ErrNotServed = errors.New("the API server serves no version that this program supports")

// Error is a failed request with a text for an administrator. It wraps the API status
// error or the network error.
type Error struct {
	text string
	err  error
	gone bool
}

// Error returns the text.
func (e *Error) Error() string { return e.text }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// Is makes errors.Is(err, ErrVersionGone) true where it applies.
func (e *Error) Is(target error) bool { return target == ErrVersionGone && e.gone }

// IsNotFound reports whether err means that the object does not exist. It returns false if
// the version is not served, which does not show whether the object exists.
func IsNotFound(err error) bool {
	return apierrors.IsNotFound(err) && !errors.Is(err, ErrVersionGone)
}

// IsConflict reports whether err means that the object is not in the expected version, or
// not the expected object.
func IsConflict(err error) bool { return apierrors.IsConflict(err) }

// IsInvalid reports whether err means that the server rejected the content of an object.
func IsInvalid(err error) bool { return apierrors.IsInvalid(err) }

// IsForbidden reports whether err means that the account lacks a permission.
func IsForbidden(err error) bool { return apierrors.IsForbidden(err) }

// IsAlreadyExists reports whether err means that an object with that name exists.
func IsAlreadyExists(err error) bool { return apierrors.IsAlreadyExists(err) }

// explain converts the error err of the request what into an *Error.
func (c *Client) explain(ctx context.Context, what op, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{err: err}
	var api apierrors.APIStatus
	if errors.As(err, &api) {
		e.text, e.gone = c.statusText(what, api.Status())
		return e
	}
	e.text = c.networkText(ctx, what, err)
	return e
}

func (c *Client) who() string {
	if a := c.Account(); a != "" {
		return a
	}
	return "an unknown account"
}

func (c *Client) statusText(what op, s metav1.Status) (text string, gone bool) {
	switch s.Code {
	case http.StatusUnauthorized:
		why := "they may have expired or been rotated"
		if c.token != nil {
			why = cmp.Or(c.token.refusedText(), why)
		}
		text = fmt.Sprintf("%s: API server %s refused the credentials of %s (%s): %s", what, c.host, c.who(), c.Source(), why)
		if c.token != nil {
			text += "; a renewed token file takes effect without a restart"
			if bad := c.token.fileError(); bad != nil {
				text += "; the token file cannot be read: " + bad.Error()
			}
		}
		return text, false
	case http.StatusForbidden:
		where := "in all namespaces"
		if what.ns != "" {
			where = fmt.Sprintf("in namespace %q", what.ns)
		}
		return fmt.Sprintf("%s: %s may not %s %s %s: check the role and its binding (%s)",
			what, c.who(), what.verb, what.resource(), where, clip(s.Message)), false
	case http.StatusNotFound:
		// The status for a missing object (or namespace) contains its name; the status
		// for a path that is not served does not.
		if what.r.Version != "" && (s.Details == nil || s.Details.Name == "") {
			return fmt.Sprintf("%s: API server %s does not serve %s in version %s",
				what, c.host, what.r.Plural, schema.GroupVersion{Group: what.r.Group, Version: what.r.Version}), true
		}
		return fmt.Sprintf("%s: %s", what, clip(s.Message)), false
	}
	msg := s.Message
	if s.Details != nil {
		for _, cause := range s.Details.Causes {
			if cause.Type == metav1.CauseTypeUnexpectedServerResponse && cause.Message != "" && cause.Message != "unknown" {
				msg += ": " + cause.Message
			}
		}
	}
	text = fmt.Sprintf("%s: API server %s answered %d: %s", what, c.host, s.Code, clip(msg))
	if s.Code == http.StatusTooManyRequests && strings.Contains(msg, "storage is (re)initializing") {
		// The server also responds like this if it cannot convert stored objects.
		text += "; if this persists, check the conversion webhook of these objects"
	}
	return text, false
}

func (c *Client) networkText(ctx context.Context, what op, err error) string {
	cause := err
	// url.Error repeats method and URL, which the text already contains.
	if u := (*url.Error)(nil); errors.As(err, &u) {
		cause = u.Err
	}
	text := fmt.Sprintf("%s: cannot reach API server %s: %s", what, c.host, clip(cause.Error()))
	var certErr *tls.CertificateVerificationError
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Sprintf("%s: API server %s did not respond within %s", what, c.host, c.o.Timeout)
	case isOutsideValidity(err):
		return fmt.Sprintf("%s: cannot reach API server %s: %s", what, c.host, validity(err, time.Now()))
	case errors.As(err, &certErr):
		hint := "; check that the CA certificate is that of this cluster"
		if c.o.CertFile != "" {
			hint = fmt.Sprintf("; check that %s contains the CA certificate of this cluster", c.o.CertFile)
		}
		return text + hint
	case errors.As(err, &dns):
		return text + "; check that the host name resolves on this node"
	}
	return text
}

// isOutsideValidity reports whether TLS failed because the clock of this node reads a time at
// which the certificate of the server is not valid.
func isOutsideValidity(err error) bool {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok && invalid.Reason == x509.Expired
}

// validity explains an error for which isOutsideValidity is true, at the time now. Which of the
// two is wrong, the clock or the certificate, is only clear if the certificate is not valid yet.
func validity(err error, now time.Time) string {
	invalid, _ := errors.AsType[x509.CertificateInvalidError](err)
	reads := "the clock of this node reads " + now.UTC().Format(time.RFC3339)
	switch c := invalid.Cert; {
	case c == nil:
		return fmt.Sprintf("%s, and the certificate of the API server is not valid then (%s); check the clock (chronyc tracking)", reads, clip(invalid.Detail))
	case now.Before(c.NotBefore):
		return fmt.Sprintf("%s, but the certificate of the API server is valid only from %s on; the clock is probably wrong: check it (chronyc tracking)",
			reads, c.NotBefore.UTC().Format(time.RFC3339))
	default:
		return fmt.Sprintf("%s, but the certificate of the API server expired at %s; check the clock first (chronyc tracking), then renew the certificate",
			reads, c.NotAfter.UTC().Format(time.RFC3339))
	}
}

// clip bounds foreign text in our messages.
func clip(s string) string { return text.Clip(s, 1024) }

// Kinds of failures without an HTTP status.
const (
	kindConnection  int32 = 0
	kindCertificate int32 = -1
	kindName        int32 = -2
	kindNotServed   int32 = -3
	kindValidity    int32 = -4
)

// kindOf classifies errors by what an administrator has to do: it returns the HTTP status,
// or the kind of failure without a status.
func kindOf(err error) int32 {
	var api apierrors.APIStatus
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	switch {
	case errors.Is(err, ErrNotServed):
		return kindNotServed
	case errors.As(err, &api):
		return api.Status().Code
	case isOutsideValidity(err):
		return kindValidity
	case errors.As(err, &cert):
		return kindCertificate
	case errors.As(err, &dns):
		return kindName
	}
	return kindConnection
}

// SameKind reports whether two failures require the same action of the administrator.
// Their texts may still differ in port and stream numbers.
func SameKind(a, b error) bool {
	kind := kindOf(a)
	if kind == kindNotServed && errors.Is(b, ErrNotServed) {
		return a.Error() == b.Error()
	}
	return kind == kindOf(b)
}
