package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	dssepb "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	rekorpb "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/rekor/pkg/types"
	"google.golang.org/protobuf/encoding/protojson"
)

const (
	bundleType    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	payloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://sigstore.dev/cosign/sign/v1"
	simpleType    = "cosign container image signature"
)

// signature is one image signed, by a key that is gone already.
type signature struct {
	image   image
	leaf    *x509.Certificate
	payload []byte
	bytes   []byte
	entry   *entry
}

type object = map[string]any

func (in *instance) sign(one image, identity, issuer string) (*signature, error) {
	digits, found := strings.CutPrefix(one.Digest, "sha256:")
	if !found {
		return nil, fmt.Errorf("%q is no SHA-256 digest", one.Digest)
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	leaf, err := in.issue(identity, issuer, key.Public())
	if err != nil {
		return nil, err
	}
	made := &signature{image: one, leaf: leaf}
	switch one.Form {
	case "bundle":
		made.payload, err = json.Marshal(object{
			"_type":         statementType,
			"predicateType": predicateType,
			"predicate":     object{},
			"subject":       []object{{"digest": object{"sha256": digits}, "annotations": object{}}},
		})
	case "sig":
		made.payload, err = json.Marshal(object{
			"critical": object{
				"identity": object{"docker-reference": one.Name},
				"image":    object{"docker-manifest-digest": one.Digest},
				"type":     simpleType,
			},
			"optional": nil,
		})
	default:
		err = fmt.Errorf("unknown form %q", one.Form)
	}
	if err != nil {
		return nil, err
	}
	if made.bytes, err = signDigest(key, made.signedBytes()); err != nil {
		return nil, err
	}
	made.entry, err = in.publish(made)
	return made, err
}

// signedBytes are what the signature covers: the payload, in a bundle in DSSE's encoding.
func (s *signature) signedBytes() []byte {
	if s.image.Form == "bundle" {
		return dsse.PAE(payloadType, s.payload)
	}
	return s.payload
}

// publish enters a signature into the log, as cosign does for its form.
func (in *instance) publish(made *signature) (*entry, error) {
	if made.image.Form == "bundle" {
		envelope, err := json.Marshal(dsse.Envelope{
			PayloadType: payloadType,
			Payload:     base64.StdEncoding.EncodeToString(made.payload),
			Signatures:  []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(made.bytes)}},
		})
		if err != nil {
			return nil, err
		}
		return in.record("dsse", types.ArtifactProperties{ArtifactBytes: envelope}, made.leaf)
	}
	digest := sha256.Sum256(made.payload)
	return in.record("hashedrekord", types.ArtifactProperties{
		ArtifactHash:   hex.EncodeToString(digest[:]),
		SignatureBytes: made.bytes,
	}, made.leaf)
}

// document is the signature in its form, as JSON for the caller to publish.
func (s *signature) document(in *instance) (json.RawMessage, error) {
	if s.image.Form == "bundle" {
		bundle, err := s.bundle(in)
		if err != nil {
			return nil, err
		}
		return json.Marshal(object{"image": s.image, "bundle": string(bundle)})
	}
	entry, err := json.Marshal(object{
		"SignedEntryTimestamp": s.entry.promise,
		"Payload":              s.entry.payload,
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(object{
		"image":   s.image,
		"payload": string(s.payload),
		"annotations": object{
			"dev.cosignproject.cosign/signature": s.bytes,
			"dev.sigstore.cosign/certificate":    string(certificatePEM(s.leaf)),
			"dev.sigstore.cosign/chain":          string(certificatePEM(in.intermediate, in.rootCA)),
			"dev.sigstore.cosign/bundle":         string(entry),
		},
	})
}

func (s *signature) bundle(in *instance) ([]byte, error) {
	logged, err := in.proven(s.entry)
	if err != nil {
		return nil, err
	}
	stamp, err := in.virtual.TimestampResponse(s.bytes)
	if err != nil {
		return nil, err
	}
	return protojson.Marshal(&bundlepb.Bundle{
		MediaType: bundleType,
		VerificationMaterial: &bundlepb.VerificationMaterial{
			Content: &bundlepb.VerificationMaterial_Certificate{
				Certificate: &commonpb.X509Certificate{RawBytes: s.leaf.Raw},
			},
			TlogEntries: []*rekorpb.TransparencyLogEntry{logged},
			TimestampVerificationData: &bundlepb.TimestampVerificationData{
				Rfc3161Timestamps: []*commonpb.RFC3161SignedTimestamp{{SignedTimestamp: stamp}},
			},
		},
		Content: &bundlepb.Bundle_DsseEnvelope{DsseEnvelope: &dssepb.Envelope{
			PayloadType: payloadType,
			Payload:     s.payload,
			Signatures:  []*dssepb.Signature{{Sig: s.bytes}},
		}},
	})
}
