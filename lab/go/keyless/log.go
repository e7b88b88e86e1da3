package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	rekorpb "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/rekor/pkg/pki"
	"github.com/sigstore/rekor/pkg/types"
	_ "github.com/sigstore/rekor/pkg/types/dsse/v0.0.1"
	_ "github.com/sigstore/rekor/pkg/types/hashedrekord/v0.0.1"
	"github.com/sigstore/rekor/pkg/util"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	sigstore "github.com/sigstore/sigstore/pkg/signature"
)

const (
	entryVersion = "0.0.1"
	rekorTreeID  = 1
)

// entry is a record in the log: its index, the log's clock, and the promise to keep it (SET).
type entry struct {
	kind    string
	body    []byte
	promise []byte
	payload tlog.RekorPayload
}

// record appends a record to the log; what it is about stands in properties, in Rekor's own terms.
func (in *instance) record(kind string, properties types.ArtifactProperties, leaf *x509.Certificate) (*entry, error) {
	ctx := context.Background()
	properties.PKIFormat = string(pki.X509)
	properties.PublicKeyBytes = [][]byte{certificatePEM(leaf)}
	proposed, err := types.NewProposedEntry(ctx, kind, entryVersion, properties)
	if err != nil {
		return nil, err
	}
	versioned, err := types.CreateVersionedEntry(proposed)
	if err != nil {
		return nil, err
	}
	body, err := types.CanonicalizeEntry(ctx, versioned)
	if err != nil {
		return nil, err
	}
	id, err := logID(in.rekorKey)
	if err != nil {
		return nil, err
	}
	made := &entry{kind: kind, body: body, payload: tlog.RekorPayload{
		Body:           base64.StdEncoding.EncodeToString(body),
		IntegratedTime: time.Now().Unix(),
		LogIndex:       int64(in.tree.Size()),
		LogID:          hex.EncodeToString(id[:]),
	}}
	text, err := json.Marshal(made.payload)
	if err != nil {
		return nil, err
	}
	canonical, err := jsoncanonicalizer.Transform(text)
	if err != nil {
		return nil, err
	}
	if made.promise, err = signDigest(in.rekorKey, canonical); err != nil {
		return nil, err
	}
	in.tree.AppendData(body)
	return made, nil
}

// proven is the record as a bundle holds it: with the proof that leads to the log's present root.
func (in *instance) proven(of *entry) (*rekorpb.TransparencyLogEntry, error) {
	index, size := of.payload.LogIndex, in.tree.Size()
	hashes, err := in.tree.InclusionProof(uint64(index), size)
	if err != nil {
		return nil, err
	}
	signer, err := sigstore.LoadECDSASigner(in.rekorKey, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	rootHash := in.tree.Hash()
	checkpoint, err := util.CreateAndSignCheckpoint(
		context.Background(), rekorHost, rekorTreeID, size, rootHash, signer)
	if err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(of.payload.LogID)
	if err != nil {
		return nil, err
	}
	return &rekorpb.TransparencyLogEntry{
		LogIndex:         index,
		LogId:            &commonpb.LogId{KeyId: id},
		KindVersion:      &rekorpb.KindVersion{Kind: of.kind, Version: entryVersion},
		IntegratedTime:   of.payload.IntegratedTime,
		InclusionPromise: &rekorpb.InclusionPromise{SignedEntryTimestamp: of.promise},
		InclusionProof: &rekorpb.InclusionProof{
			LogIndex:   index,
			RootHash:   rootHash,
			TreeSize:   int64(size),
			Hashes:     hashes,
			Checkpoint: &rekorpb.Checkpoint{Envelope: string(checkpoint)},
		},
		CanonicalizedBody: of.body,
	}, nil
}

func certificatePEM(certificates ...*x509.Certificate) []byte {
	var text []byte
	for _, one := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: one.Raw})...)
	}
	return text
}
