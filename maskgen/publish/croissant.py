"""croissant.json: a published mask set in MLCommons' Croissant, for the search engines of data sets."""

from pathlib import Path

from maskgen.maskset import INDEX
from maskgen.publish.texts import COLUMNS, LICENCES, bibtex, facts
from maskgen.runtime.files import sha256
from maskgen.settings import PublishConfig


def croissant(table, recipe: dict, sources: list[dict], config: PublishConfig, out: Path) -> dict:
    """croissant.json: the set in MLCommons' Croissant 1.1 with its Responsible AI part, as a JSON-LD object."""
    index, archive = out / "test" / INDEX, out / "archives" / "masks.zip"
    link = LICENCES.get(config.licence, ("", ""))[1]
    told = [name for name in table.columns if name in COLUMNS]
    from_index = [
        {
            "@type": "cr:Field",
            "@id": f"masks/{name}",
            "name": name,
            "description": COLUMNS[name][0],
            "dataType": COLUMNS[name][1],
            "source": {"fileObject": {"@id": "index"}, "extract": {"column": name}},
        }
        for name in told
    ]
    # A row of the index and its picture meet by the file's name.
    key = {"source": {"fileSet": {"@id": "mask-files"}, "extract": {"fileProperty": "fullpath"}}}
    image = {
        "@type": "cr:Field",
        "@id": "images/image",
        "name": "image",
        "description": "the mask, white where pixels are missing",
        "dataType": "sc:ImageObject",
        "source": {"fileSet": {"@id": "mask-files"}, "extract": {"fileProperty": "content"}},
    }
    path = {"@type": "cr:Field", "@id": "images/path", "name": "path", "description": "path within the zip"}
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": config.name,
        "description": " ".join(facts(table, recipe).replace("**", "").split()),
        "license": link or config.licence,
        "url": config.url or "test",  # Croissant wants one; relative to this file, the masks themselves
        "creator": {"@type": "sc:Organization", "name": config.creator},
        "datePublished": config.date,
        "version": config.version,
        "keywords": ["inpainting", "irregular masks", "occlusion", "optical flow", "benchmark"],
        "inLanguage": "en",
        "citeAs": bibtex(config),
        "isBasedOn": [
            f"{s.get('name')} ({s.get('source', 'not stated')}, {s.get('licence', 'not stated')})" for s in sources
        ],
        "rai:dataCollection": f"Optical flow between frames of {len(sources)} public videos; forward-backward check.",
        "rai:dataCollectionType": ["Secondary Data Analysis", "Software Collection"],
        "rai:dataPreprocessingProtocol": [
            "Raw holes are joined, turned, shifted, cropped and grown to a wanted ratio; recipe.json has the settings."
        ],
        "rai:dataBiases": [f"Holes follow what moved in {len(sources)} videos; other videos give other shapes."],
        "rai:dataUseCases": ["Testing image inpainting by size of hole and distance from the border."],
        "rai:dataLimitations": [
            "Interior masks above a ratio of 0.5 nearly fill the room the border leaves.",
            "Not the masks of Liu et al. 2018, though made by the recipe of their paper.",
        ],
        "rai:dataSocialImpact": "Comparable tests of inpainting; better inpainting also serves forgers of images.",
        "rai:personalSensitiveInformation": [
            "None: outlines of moving things, turned and widened, without any picture."
        ],
        "rai:dataReleaseMaintenancePlan": "Versions as in datasheet.md; checksums.sha256 tells them apart.",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "archive",
                "name": "archive",
                "contentUrl": "archives/masks.zip",
                "contentSize": f"{archive.stat().st_size} B",
                "encodingFormat": "application/zip",
                "sha256": sha256(archive),
            },
            {
                "@type": "cr:FileObject",
                "@id": "index",
                "name": "index",
                "contentUrl": f"test/{INDEX}",
                "contentSize": f"{index.stat().st_size} B",
                "encodingFormat": "text/csv",
                "sha256": sha256(index),
            },
            {
                "@type": "cr:FileSet",
                "@id": "mask-files",
                "name": "mask-files",
                "containedIn": {"@id": "archive"},
                "encodingFormat": "image/png",
                "includes": "masks/*.png",
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "masks",
                "name": "masks",
                "key": {"@id": "masks/file_name"},
                "field": from_index,
            },
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "field": [{**path, "dataType": "sc:Text", **key}, image],
            },
        ],
    }


CONTEXT = {  # the names of Croissant 1.1, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
