// The flags of volley image that no other verb has.
#include "apps/image_flags.h"

#include "core/base/error.h"
#include "image/image_job.h"

namespace volley::apps {

void add_image_flags(CLI::App& verb, ImageFlags& flags) {
  add_arguments(
      verb,
      {.names = "prompt",
       .type = "WORDS",
       .meaning = "what to draw, in words; a model without a text encoder draws the class that they name"},
      flags.prompt);
  add_text(verb, {.names = "--class", .type = "NAME", .meaning = "what to draw: the exact name of a class"},
           flags.class_name);
  add_text(
      verb,
      {.names = "-f,--prompt-file",
       .type = "FILE|-",
       .meaning = "what to draw, a line each: a prompt, or JSON with prompt or class, seed, count, name"},
      flags.prompt_file);
  add_integer(verb, {.names = "-n,--count", .meaning = "pictures [1]", .low = 1, .high = image::kMaxCount},
              [&flags](int64_t value) { flags.count = value; });
  add_integer(verb,
              {.names = "--batch",
               .meaning = "pictures decoded together at most; takes memory, changes no picture [" +
                          std::to_string(image::kProcessorBatch) + " on a cpu, " +
                          std::to_string(image::kImageBatch) + " on a GPU]",
               .low = 1,
               .high = image::kImageBatch},
              [&flags](int64_t value) { flags.batch = value; });
  add_text(verb, {.names = "--seeds", .type = "N,N,..", .meaning = "one picture of each of these seeds"},
           flags.seeds);
  add_switch(verb, "--grid", flags.grid, "one file with all pictures side by side, instead of one each");
  add_integer(verb,
              {.names = "--quality", .meaning = "of JPEG [90], of WebP [lossless]", .low = 1, .high = 100},
              [&flags](int64_t value) { flags.quality = value; });
  add_integer(verb,
              {.names = "--steps",
               .meaning = "forwards of decoder parallel [the model's card]",
               .low = 1,
               .high = 65536},
              [&flags](int64_t value) { flags.shared.method.steps = value; });
  add_choice(verb,
             {.names = "--schedule",
              .choices = {"arccos", "cosine"},
              .meaning = "sizes of decoder parallel's steps [the model's card]"},
             flags.shared.method.schedule);
  add_choice(verb,
             {.names = "--order",
              .choices = {"random", "raster", "center"},
              .meaning = "which cells decoder parallel decides first [random]"},
             flags.shared.method.order);
  add_text(verb,
           {.names = "--init",
            .type = "FILE",
            .meaning = "picture to change (PNG, JPEG, WebP), scaled and cropped to the model's square"},
           flags.init);
  add_text(verb,
           {.names = "--mask", .type = "FILE", .meaning = "what of --init to repaint: white; black is kept"},
           flags.mask);
  add_number(verb,
             {.names = "--strength",
              .meaning = "share of the cells of --init to repaint when there is no mask [0.75]",
              .low = 0.0,
              .high = 1.0},
             [&flags](double value) { flags.strength = value; });
  add_integer(verb,
              {.names = "--feather",
               .meaning = "pixels around what is repainted that are blended; 0: hard edge [half a cell]",
               .low = 0,
               .high = image::kMaxFeather},
              [&flags](int64_t value) { flags.feather = value; });
  add_text(verb,
           {.names = "--outpaint",
            .type = "SIDE[=N],..",
            .meaning = "widen --init by N cells to the left, right, up, down [half a square]"},
           flags.outpaint);
  add_texts(verb,
            {.names = "--preview",
             .type = "FILE|term",
             .meaning = "show the picture in the making: a file to replace, or term for the terminal"},
            [&flags](const std::string& place) {
              if (place.empty()) throw Error("--preview: is empty", ErrorKind::kUsage);
              flags.previews.push_back(place);
            });
  add_integer(verb,
              {.names = "--preview-every",
               .meaning = "steps between previews [0: at most two a second]",
               .low = 0,
               .high = 65536},
              [&flags](int64_t value) { flags.preview_every = value; });
  add_text(verb,
           {.names = "--animate",
            .type = "FILE",
            .meaning = "how the picture filled in: .webp, .png or .gif; several need %03d"},
           flags.animate);
  add_text(verb,
           {.names = "--step-map",
            .type = "FILE",
            .meaning = "PNG of the cells, coloured by the step that decided them"},
           flags.step_map);
}

int64_t batch_for(const ImageFlags& flags, const Backend& backend) {
  return flags.batch.value_or(is_processor(backend) ? image::kProcessorBatch : image::kImageBatch);
}

}  // namespace volley::apps
