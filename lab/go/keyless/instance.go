package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
)

// Hosts of the instance: below a top-level domain that cannot exist, so that nothing can answer.
const (
	fulcioURL = "https://fulcio.lab.local-imager.test"
	rekorURL  = "https://rekor.lab.local-imager.test"
	rekorHost = "rekor.lab.local-imager.test"
	ctURL     = "https://ctfe.lab.local-imager.test"
)

// The instance is trusted for what it signed around now; verifying must work long after.
const (
	trustedBefore = time.Hour
	trustedAfter  = time.Hour
)

// instance is a private Sigstore that lives as long as this process.
//
// The timestamp authority is the one of sigstore-go's VirtualSigstore, and the certificates of the
// authorities come from the same package. VirtualSigstore's own leaf certificates carry no SCT and
// only the first spelling of the issuer, and its Rekor proves inclusion in a tree of one entry
// under a checkpoint of another size; so leaves, CT log and Rekor are made in this program.
type instance struct {
	began        time.Time
	virtual      *ca.VirtualSigstore
	rootCA       *x509.Certificate
	intermediate *x509.Certificate
	issuingKey   *ecdsa.PrivateKey
	ctKey        *ecdsa.PrivateKey
	rekorKey     *ecdsa.PrivateKey
	tree         *testonly.Tree
}

func newInstance() (*instance, error) {
	virtual, err := ca.NewVirtualSigstore()
	if err != nil {
		return nil, err
	}
	rootCA, rootKey, err := ca.GenerateRootCa()
	if err != nil {
		return nil, err
	}
	intermediate, issuingKey, err := ca.GenerateFulcioIntermediate(rootCA, rootKey)
	if err != nil {
		return nil, err
	}
	ctKey, err := newKey()
	if err != nil {
		return nil, err
	}
	rekorKey, err := newKey()
	if err != nil {
		return nil, err
	}
	return &instance{
		began:        time.Now(),
		virtual:      virtual,
		rootCA:       rootCA,
		intermediate: intermediate,
		issuingKey:   issuingKey,
		ctKey:        ctKey,
		rekorKey:     rekorKey,
		tree:         testonly.New(rfc6962.DefaultHasher),
	}, nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// logID is the SHA-256 of a log's public key, in Rekor as in RFC 6962.
func logID(key *ecdsa.PrivateKey) ([sha256.Size]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(der), nil
}

// trustedRoot writes down what a verifier has to know of this instance.
func (in *instance) trustedRoot() ([]byte, error) {
	authority := &root.FulcioCertificateAuthority{
		URI:                 fulcioURL,
		Root:                in.rootCA,
		Intermediates:       []*x509.Certificate{in.intermediate},
		ValidityPeriodStart: in.began.Add(-trustedBefore),
		ValidityPeriodEnd:   in.began.Add(trustedAfter),
	}
	ctLogs, err := in.log(ctURL, in.ctKey)
	if err != nil {
		return nil, err
	}
	rekorLogs, err := in.log(rekorURL, in.rekorKey)
	if err != nil {
		return nil, err
	}
	trusted, err := root.NewTrustedRoot(
		root.TrustedRootMediaType01,
		[]root.CertificateAuthority{authority},
		ctLogs,
		in.virtual.TimestampingAuthorities(),
		rekorLogs,
	)
	if err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	return trusted.MarshalJSON()
}

func (in *instance) log(url string, key *ecdsa.PrivateKey) (map[string]*root.TransparencyLog, error) {
	id, err := logID(key)
	if err != nil {
		return nil, err
	}
	return map[string]*root.TransparencyLog{
		hex.EncodeToString(id[:]): {
			BaseURL:             url,
			ID:                  id[:],
			ValidityPeriodStart: in.began.Add(-trustedBefore),
			ValidityPeriodEnd:   in.began.Add(trustedAfter),
			HashFunc:            crypto.SHA256,
			PublicKey:           key.Public(),
			SignatureHashFunc:   crypto.SHA256,
		},
	}, nil
}
