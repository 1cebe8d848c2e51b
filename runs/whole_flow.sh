#!/usr/bin/env bash
# The whole way by seven commands, no Python written: videos -> dataset -> encoded clips -> aligner
# -> animator -> evaluation -> service -> mp4. Run it from anywhere:
#
#   runs/whole_flow.sh                                            generated people, about 15 minutes
#   VIDEOS=my-videos runs/whole_flow.sh                           your own videos
#   OUT=flow ANIMATOR_SET="loop.num_steps=20" runs/whole_flow.sh  shorter
#
# Every step resumes: after Ctrl-C or a power cut the same command goes on where it stopped.
set -euo pipefail

OUT=${OUT:-flow}                      # folder that gets everything
VIDEOS=${VIDEOS:-}                    # your videos; empty renders generated people into OUT/videos
NUM_VIDEOS=${NUM_VIDEOS:-12}          # how many of those
SEED=${SEED:-7}                       # same seed, same videos
# Who looks at the pixels: generated, permissive (your own videos) or paper.
PROFILE=${PROFILE:-$([ -n "$VIDEOS" ] && echo permissive || echo generated)}
POLICY=${POLICY:-standard}            # which clips are kept
case $PROFILE in
  generated) recipe=animator_demo_cpu ;;
  permissive) recipe=animator_permissive_cpu ;;
  *) recipe=animator_1gpu ;;
esac
RECIPE=${RECIPE:-$recipe}             # animator's recipe (animaray train recipes)
ALIGNER_RECIPE=${ALIGNER_RECIPE:-aligner_demo_cpu}
CURATE_SET=${CURATE_SET:-}            # settings for each command, as in "a.b=1 c=2"
ENCODE_SET=${ENCODE_SET:-}
ALIGNER_SET=${ALIGNER_SET:-}
ANIMATOR_SET=${ANIMATOR_SET:-}
EVALUATE_SET=${EVALUATE_SET:-max_frames=8}
BACKBONE=${BACKBONE:-}                # PROFILE=paper: diffusers folder of Stable Video Diffusion, the start
IMAGE=${IMAGE:-}                      # picture to animate; empty takes one of a kept clip
DRIVING=${DRIVING:-}                  # video that drives it; empty takes that clip's
PORT=${PORT:-8500}                    # of the service
JOB_OPTIONS=${JOB_OPTIONS:-}          # more options of `animaray jobs submit`, as in "--steps 8"
ANIMARAY=${ANIMARAY:-animaray}        # the command; default: the one on PATH

say() { printf '\n== %s\n' "$*" >&2; }

# Turns "a=1 b=2" into --set a=1 --set b=2 in the array `sets`.
read_sets() {
  sets=()
  local one
  for one in $1; do sets+=(--set "$one"); done
}

mkdir -p "$OUT"
dataset=$OUT/dataset
if [ -z "$VIDEOS" ]; then
  VIDEOS=$OUT/videos
  if [ ! -e "$OUT/videos/.complete" ]; then
    say "0  videos of generated people (animaray dataset world)"
    "$ANIMARAY" dataset world "$VIDEOS" --videos "$NUM_VIDEOS" --seed "$SEED"
    touch "$OUT/videos/.complete"
  fi
fi

if [ "$PROFILE" = permissive ]; then
  say "0  files of profile permissive (animaray weights pull)"
  "$ANIMARAY" weights pull --profile permissive permissive/codec_encoder permissive/codec_decoder
fi

start=
if [ "$PROFILE" = paper ] && [ -n "$BACKBONE" ]; then
  start=$OUT/start
  if [ ! -e "$start/model_index.json" ]; then
    say "0  what the training starts from (animaray weights import)"
    "$ANIMARAY" weights import --backbone "$BACKBONE" --out "$start"
  fi
fi

say "1  animaray curate"
read_sets "$CURATE_SET"
"$ANIMARAY" curate "$VIDEOS" --out "$dataset" --profile "$PROFILE" --policy "$POLICY" "${sets[@]}"

say "2  animaray dataset encode"
read_sets "$ENCODE_SET"
"$ANIMARAY" dataset encode "$dataset" --profile "$PROFILE" --policy "$POLICY" "${sets[@]}"

say "3  animaray train aligner"
read_sets "policy=$POLICY $ALIGNER_SET"
"$ANIMARAY" train aligner --recipe "$ALIGNER_RECIPE" --data "$dataset" --out "$OUT/runs/aligner" \
  "${sets[@]}"

say "4  animaray train animator"
read_sets "policy=$POLICY $ANIMATOR_SET"
[ -z "$start" ] || sets+=(--set "init_from=$start")
"$ANIMARAY" train animator --recipe "$RECIPE" --data "$dataset" --out "$OUT/runs/animator" \
  --aligner "$OUT/runs/aligner/weights" "${sets[@]}"
weights=$OUT/runs/animator/weights

say "5  animaray evaluate"
read_sets "policy=$POLICY $EVALUATE_SET"
"$ANIMARAY" evaluate --data "$dataset" --weights "$weights" --out "$OUT/evaluation" --limit 2 \
  "${sets[@]}"

# A picture and a driving video: those of the first kept clip, unless the user named others.
if [ -z "$IMAGE" ] || [ -z "$DRIVING" ]; then
  clip=$("$ANIMARAY" dataset list "$dataset" --policy "$POLICY" --json |
    awk -F'"' '/"clip_id"/ { id = $4 } /"keep": true/ && !found { print id; found = 1 }')
  "$ANIMARAY" dataset show "$dataset" "$clip" --extract "$OUT/inputs" >/dev/null
  IMAGE=${IMAGE:-$OUT/inputs/$clip.jpg}
  DRIVING=${DRIVING:-$OUT/inputs/$clip.mp4}
fi

say "6  animaray serve"
server=http://127.0.0.1:$PORT
"$ANIMARAY" serve --weights "$weights" --port "$PORT" --data "$OUT/serving" &
service=$!
trap 'kill -TERM "$service" 2>/dev/null || true; wait "$service" || true' EXIT
until "$ANIMARAY" jobs list --server "$server" >/dev/null 2>&1; do
  kill -0 "$service" 2>/dev/null || { say "the service ended before it answered"; exit 6; }
  sleep 1
done

say "7  animaray jobs submit"
# shellcheck disable=SC2086 # several options in one variable, on purpose
"$ANIMARAY" jobs submit "$IMAGE" "$DRIVING" --server "$server" --out "$OUT/result.mp4" \
  --seed "$SEED" $JOB_OPTIONS

say "done: $OUT/result.mp4
   curves     $OUT/runs/aligner/curves.png  $OUT/runs/animator/curves.png
   weights    $weights
   evaluation $OUT/evaluation"
